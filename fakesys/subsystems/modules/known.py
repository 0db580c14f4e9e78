"""The modules that a machine has: names, sizes, what they need, as `modinfo` tells of them.

Sources: MODULE_* and module_param calls of drivers/s390/crypto, drivers/vfio, arch/x86/kvm (v6.1).
Differs: vfio_ap does not need kvm, which is that of another architecture here; pkey is one module
in all kernels.
"""

from __future__ import annotations

from fakesys.subsystems.modules.model import ModuleInfo, Parameter

AP = ModuleInfo(
    name="ap",
    description="Adjunct Processor Bus driver",
    file="drivers/s390/crypto/ap.ko",
    parameters=(
        Parameter("domain", "int", "domain index for ap devices"),
        Parameter("poll_thread", "int", "Turn on/off poll thread, default is 0 (off)."),
        Parameter("apmask", "charp", "AP bus adapter mask."),
        Parameter("aqmask", "charp", "AP bus domain mask."),
        Parameter("useirq", "int", "Use interrupt if available, default is 1 (on)."),
    ),
    builtin=True,
)
ZCRYPT = ModuleInfo(
    name="zcrypt",
    description="Cryptographic Coprocessor interface",
    file="drivers/s390/crypto/zcrypt.ko",
    core_size=118784,
    parameters=(Parameter("hwrng_seed", "int", "Turn on/off hwrng auto seed, default is 1 (on)."),),
)
ZCRYPT_CEX4 = ModuleInfo(
    name="zcrypt_cex4",
    description="Cryptographic Card device driver of CEX4 to CEX8",
    file="drivers/s390/crypto/zcrypt_cex4.ko",
    core_size=24576,
    depends=("zcrypt",),
)
PKEY = ModuleInfo(
    name="pkey",
    description="s390 protected key interface",
    file="drivers/s390/crypto/pkey.ko",
    core_size=40960,
    depends=("zcrypt",),
)
VFIO = ModuleInfo(
    name="vfio",
    description="VFIO - User Level meta-driver",
    file="drivers/vfio/vfio.ko",
    core_size=61440,
    version="0.3",
    author="Alex Williamson",
    license="GPL v2",
)
MDEV = ModuleInfo(
    name="mdev",
    description="Mediated device Core Driver",
    file="drivers/vfio/mdev/mdev.ko",
    core_size=28672,
    version="0.1",
    author="NVIDIA Corporation",
    license="GPL v2",
)
VFIO_AP = ModuleInfo(
    name="vfio_ap",
    description="VFIO AP device driver",
    file="drivers/s390/crypto/vfio_ap.ko",
    core_size=45056,
    depends=("vfio", "mdev"),
    license="GPL v2",
)
KVM = ModuleInfo(
    name="kvm",
    description="Kernel-based Virtual Machine driver",
    file="arch/x86/kvm/kvm.ko",
    core_size=1146880,
    author="Qumranet",
)
KVM_AMD = ModuleInfo(
    name="kvm_amd",
    description="KVM support for SVM (AMD-V) extensions",
    file="arch/x86/kvm/kvm-amd.ko",
    core_size=163840,
    depends=("kvm",),
    author="Qumranet",
)

# In the order in which a host loads them.
AP_MODULES = (ZCRYPT, ZCRYPT_CEX4, PKEY, VFIO, MDEV, VFIO_AP)
KVM_MODULES = (KVM, KVM_AMD)
