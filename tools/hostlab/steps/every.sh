# limit: 6000
files=$(ls tests/kvm/test_api_*.py tests/kvm/test_pv_*.py tests/kvm/test_exposed*.py tests/kvm/test_machine.py tests/kvm/test_memory.py tests/kvm/test_vcpu.py tests/kvm/test_vm.py tests/kvm/test_system.py tests/kvm/test_library.py tests/kvm/test_reach.py)
pytest $files -p no:cacheprovider -o timeout=900 -v --durations=0 --junitxml="$OUT/junit.xml"
exit 0
