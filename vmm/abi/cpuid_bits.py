# SPDX-License-Identifier: GPL-2.0-or-later
"""Feature bits of CPUID by leaf, sub-leaf and register, and the other spellings of their names.

What kinds of names these are says cpuid.py, which finds features here. Sources: Intel SDM vol. 2A, CPUID; AMD APM
vol. 3, appendix E; Linux's asm/cpufeatures.h and kvm/reverse_cpuid.h.
"""

from __future__ import annotations

from vmm.abi.cpuid_entry import HYPERVISOR, TSC_DEADLINE, X2APIC

TABLE: dict[tuple[int, int, str], dict[int, str]] = {
    (0x1, 0, "edx"): {
        0: "fpu", 1: "vme", 2: "de", 3: "pse", 4: "tsc", 5: "msr", 6: "pae", 7: "mce", 8: "cx8", 9: "apic",
        11: "sep", 12: "mtrr", 13: "pge", 14: "mca", 15: "cmov", 16: "pat", 17: "pse36", 18: "pn", 19: "clflush",
        21: "dts", 22: "acpi", 23: "mmx", 24: "fxsr", 25: "sse", 26: "sse2", 27: "ss", 28: "ht", 29: "tm",
        30: "ia64", 31: "pbe",
    },
    (0x1, 0, "ecx"): {
        0: "pni", 1: "pclmulqdq", 2: "dtes64", 3: "monitor", 4: "ds_cpl", 5: "vmx", 6: "smx", 7: "est", 8: "tm2",
        9: "ssse3", 10: "cid", 11: "sdbg", 12: "fma", 13: "cx16", 14: "xtpr", 15: "pdcm", 17: "pcid", 18: "dca",
        19: "sse4_1", 20: "sse4_2", X2APIC.bit: X2APIC.name, 22: "movbe", 23: "popcnt",
        TSC_DEADLINE.bit: TSC_DEADLINE.name, 25: "aes", 26: "xsave", 27: "osxsave", 28: "avx", 29: "f16c",
        30: "rdrand", HYPERVISOR.bit: HYPERVISOR.name,
    },
    (0x6, 0, "eax"): {
        0: "dtherm", 1: "ida", 2: "arat", 4: "pln", 6: "pts", 7: "hwp", 8: "hwp_notify", 9: "hwp_act_window",
        10: "hwp_epp", 11: "hwp_pkg_req",
    },
    (0x6, 0, "ecx"): {0: "aperfmperf", 3: "epb"},
    (0x7, 0, "ebx"): {
        0: "fsgsbase", 1: "tsc_adjust", 2: "sgx", 3: "bmi1", 4: "hle", 5: "avx2", 6: "fdp_excptn_only", 7: "smep",
        8: "bmi2", 9: "erms", 10: "invpcid", 11: "rtm", 12: "cqm", 13: "zero_fcs_fds", 14: "mpx", 15: "rdt_a",
        16: "avx512f", 17: "avx512dq", 18: "rdseed", 19: "adx", 20: "smap", 21: "avx512ifma", 23: "clflushopt",
        24: "clwb", 25: "intel_pt", 26: "avx512pf", 27: "avx512er", 28: "avx512cd", 29: "sha_ni", 30: "avx512bw",
        31: "avx512vl",
    },
    (0x7, 0, "ecx"): {
        1: "avx512vbmi", 2: "umip", 3: "pku", 4: "ospke", 5: "waitpkg", 6: "avx512_vbmi2", 7: "shstk", 8: "gfni",
        9: "vaes", 10: "vpclmulqdq", 11: "avx512_vnni", 12: "avx512_bitalg", 13: "tme", 14: "avx512_vpopcntdq",
        16: "la57", 22: "rdpid", 24: "bus_lock_detect", 25: "cldemote", 27: "movdiri", 28: "movdir64b",
        29: "enqcmd", 30: "sgx_lc",
    },
    (0x7, 0, "edx"): {
        2: "avx512_4vnniw", 3: "avx512_4fmaps", 4: "fsrm", 8: "avx512_vp2intersect", 9: "srbds_ctrl",
        10: "md_clear", 11: "rtm_always_abort", 13: "tsx_force_abort", 14: "serialize", 15: "hybrid_cpu",
        16: "tsxldtrk", 18: "pconfig", 19: "arch_lbr", 20: "ibt", 22: "amx_bf16", 23: "avx512_fp16",
        24: "amx_tile", 25: "amx_int8", 26: "spec_ctrl", 27: "intel_stibp", 28: "flush_l1d",
        29: "arch_capabilities", 30: "core_capabilities", 31: "spec_ctrl_ssbd",
    },
    (0x7, 1, "eax"): {
        0: "sha512", 1: "sm3", 2: "sm4", 4: "avx_vnni", 5: "avx512_bf16", 6: "lass", 7: "cmpccxadd",
        8: "arch_perfmon_ext", 10: "fzrm", 11: "fsrs", 12: "fsrc", 17: "fred", 18: "lkgs", 19: "wrmsrns",
        21: "amx_fp16", 23: "avx_ifma", 26: "lam",
    },
    (0x7, 1, "edx"): {
        4: "avx_vnni_int8", 5: "avx_ne_convert", 8: "amx_complex", 10: "avx_vnni_int16", 14: "prefetchiti",
        19: "avx10", 21: "apx",
    },
    (0x7, 2, "edx"): {
        0: "intel_psfd", 1: "ipred_ctrl", 2: "rrsba_ctrl", 3: "ddpd_u", 4: "bhi_ctrl", 5: "mcdt_no",
    },
    (0xD, 1, "eax"): {0: "xsaveopt", 1: "xsavec", 2: "xgetbv1", 3: "xsaves", 4: "xfd"},
    (0x80000001, 0, "edx"): {
        11: "syscall", 19: "mp", 20: "nx", 22: "mmxext", 25: "fxsr_opt", 26: "pdpe1gb", 27: "rdtscp", 29: "lm",
        30: "3dnowext", 31: "3dnow",
    },
    (0x80000001, 0, "ecx"): {
        0: "lahf_lm", 1: "cmp_legacy", 2: "svm", 3: "extapic", 4: "cr8_legacy", 5: "abm", 6: "sse4a",
        7: "misalignsse", 8: "3dnowprefetch", 9: "osvw", 10: "ibs", 11: "xop", 12: "skinit", 13: "wdt", 15: "lwp",
        16: "fma4", 17: "tce", 19: "nodeid_msr", 21: "tbm", 22: "topoext", 23: "perfctr_core", 24: "perfctr_nb",
        26: "bpext", 27: "ptsc", 28: "perfctr_llc", 29: "mwaitx",
    },
    (0x80000007, 0, "ebx"): {0: "overflow_recov", 1: "succor", 3: "smca"},
    (0x80000007, 0, "edx"): {7: "hw_pstate", 8: "constant_tsc", 9: "cpb", 11: "proc_feedback"},
    (0x80000008, 0, "ebx"): {
        0: "clzero", 1: "irperf", 2: "xsaveerptr", 4: "rdpru", 9: "wbnoinvd", 12: "ibpb", 14: "ibrs", 15: "stibp",
        17: "stibp_always_on", 23: "amd_ppin", 24: "ssbd", 25: "virt_ssbd", 26: "ssb_no", 28: "amd_psfd",
        29: "btc_no", 30: "ibpb_ret",
    },
    (0x8000000A, 0, "edx"): {
        0: "npt", 1: "lbrv", 2: "svm_lock", 3: "nrip_save", 4: "tsc_scale", 5: "vmcb_clean", 6: "flushbyasid",
        7: "decodeassists", 10: "pausefilter", 12: "pfthreshold", 13: "avic", 15: "v_vmsave_vmload", 16: "vgif",
        20: "v_spec_ctrl", 25: "vnmi", 28: "svme_addr_chk",
    },
    (0x8000001F, 0, "eax"): {0: "sme", 1: "sev", 2: "vm_page_flush", 3: "sev_es", 4: "sev_snp", 10: "sme_coherent"},
    (0x80000021, 0, "eax"): {
        0: "no_nested_data_bp", 1: "wrmsr_xx_base_ns", 2: "lfence_rdtsc", 5: "verw_clear", 6: "null_sel_clr_base",
        8: "autoibrs", 9: "no_smm_ctl_msr", 17: "gp_on_user_cpuid", 20: "prefetchi", 27: "sbpb", 28: "ibpb_brtype",
        29: "srso_no", 30: "srso_user_kernel_no",
    },
    (0x80000022, 0, "eax"): {0: "perfmon_v2", 1: "amd_lbr_v2"},
}  # fmt: skip

ALIASES = {
    "sse3": "pni", "xmm3": "pni", "xmm": "sse", "xmm2": "sse2", "sse4.1": "sse4_1", "sse4.2": "sse4_2",
    "xmm4_1": "sse4_1", "xmm4_2": "sse4_2", "mwait": "monitor", "ds": "dts", "selfsnoop": "ss", "acc": "tm",
    "htt": "ht", "dscpl": "ds_cpl", "cmpxchg16b": "cx16", "cmpxchg8b": "cx8", "tsc_deadline": "tsc_deadline_timer",
    "gbpages": "pdpe1gb", "1gb_pages": "pdpe1gb", "invtsc": "constant_tsc", "nonstop_tsc": "constant_tsc",
    "invariant_tsc": "constant_tsc", "nrips": "nrip_save", "tscratemsr": "tsc_scale", "vmcbclean": "vmcb_clean",
    "svml": "svm_lock", "long_mode": "lm", "lzcnt": "abm", "sha": "sha_ni", "clmul": "pclmulqdq", "xd": "nx",
    "amd_ibpb": "ibpb", "amd_ibrs": "ibrs", "amd_stibp": "stibp", "amd_ssbd": "ssbd", "amd_ssb_no": "ssb_no",
    "amd_stibp_always_on": "stibp_always_on", "amd_ibpb_ret": "ibpb_ret", "cet_ss": "shstk", "cet_ibt": "ibt",
}  # fmt: skip
