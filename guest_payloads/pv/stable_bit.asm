; summary: does the clock's page say that all vCPUs see one monotone clock, and say otherwise once that is lost?
; proves:  CLOCKSOURCE_STABLE_BIT
; param:   system_msr = 0x4b564d01   MSR_KVM_SYSTEM_TIME_NEW
; param:   old_msr    = 0x12         MSR_KVM_SYSTEM_TIME
; result:  features   u32  EAX of CPUID leaf 0x40000001
; result:  version    u32  version of the page by the new MSR: even, not 0
; result:  flags      u8   its flags: bit 0 is set where KVM_GET_CLOCK says KVM_CLOCK_TSC_STABLE
; result:  flags_old  u8   flags after vCPU 0 has used the old MSR: bit 0 is clear
; result:  flags_back u8   flags after it has used the new one again: as at first
;
; A guest may compare readings of different vCPUs only while bit 0 of the page's flags is set, and believes that bit
; only if CPUID has KVM_FEATURE_CLOCKSOURCE_STABLE_BIT. KVM can keep one clock for all vCPUs while their TSCs run in
; step and the host itself counts time by the TSC; and it gives that up for guests so old that their vCPU 0 uses the
; old MSR. At each STEP the host half asks KVM_GET_CLOCK for its opinion.

%include "results.inc"

PAGE = DATA_BASE                          ; pvclock_vcpu_time_info

; Name the page by an MSR, leave to the host so that KVM writes it on the way back, and read its flags.
.macro FLAGS_BY msr, number
    mov   ecx, \msr
    mov   eax, PAGE + KVM_MSR_ENABLED     ; bit 0 enables, the rest is the address
    xor   edx, edx
    wrmsr
    mov   al, 0
    out   DELAY_PORT, al                  ; the entry after this exit writes the page
    mov   al, \number
    out   DELAY_PORT, al                  ; STEP: now the host asks KVM
    movzx eax, byte ptr [PAGE + PVCLOCK_flags]
.endm

start:
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    mov   eax, eax                        ; clears the upper half
    RESULT features
    FLAGS_BY PARAM_system_msr, 1
    RESULT flags
    mov   eax, dword ptr [PAGE + PVCLOCK_version]
    RESULT version
    FLAGS_BY PARAM_old_msr, 2
    RESULT flags_old
    FLAGS_BY PARAM_system_msr, 3
    RESULT flags_back
    PASS
