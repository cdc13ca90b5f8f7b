"""Examples for the group gpu: an 8-GPU host, a GB10, a laptop, and each with one thing wrong."""

from dataclasses import replace
from typing import Any

from tests.unit.checks.examples import FAIL, OK, SKIP, UNKNOWN, WARN, changed, examples, node

from shoal.facts.container import ContainerFacts
from shoal.facts.gpu import Gpu, GpuFacts, GpuProcess, NvLink
from shoal.facts.machine import MachineFacts
from shoal.facts.node import NodeFacts
from shoal.facts.rdma import RdmaDevice, RdmaFacts
from shoal.facts.stack import RayProcess, StackFacts

GIB = 1 << 30
LINKS = tuple(NvLink(index, active=True, gbps=26.562, errors=0) for index in range(4))
H100 = Gpu(
    0,
    "NVIDIA H100 80GB HBM3",
    81559,
    used_mib=4,
    bar1_mib=131072,
    uuid="GPU-0",
    pci="0000:1b:00.0",
    persistence=True,
    compute_mode="Default",
    mig=False,
    ecc_uncorrected=0,
    ecc_corrected=0,
    remap_pending=False,
    remap_failure=False,
    temperature_c=31,
    slowdown_c=87,
    utilisation=0,
    pcie_width=16,
    pcie_width_max=16,
    pcie_gen=5,
    pcie_gen_max=5,
    throttle=(),
    fabric_state="Completed",
    fabric_status="Success",
    numa_node=0,
    nvlinks=LINKS,
)
SECOND = replace(H100, index=1, pci="0000:43:00.0", uuid="GPU-1", numa_node=1)
HOST = node(
    gpu=GpuFacts(
        gpus=(H100, SECOND),
        installed=True,
        driver="570.158.01",
        kernel_driver="570.158.01",
        open_module=True,
        cuda="12.8",
        processes=(),
        cards=("0000:1b:00.0", "0000:43:00.0"),
        peermem=True,
        fabric_manager="active",
        switches=4,
        xids=(),
        sxids=(),
    ),
    machine=MachineFacts(kernel="6.8.0-79-generic", modules=("nvidia",), numa_nodes=2, virtual=""),
    stack=StackFacts(cuda_runtime="12.8", processes=()),
    rdma=RdmaFacts(devices=(RdmaDevice("mlx5_0"),)),
    container=ContainerFacts(inside=""),
    env={},
)
LAPTOP = node(gpu=GpuFacts(installed=False, cards=()), rdma=RdmaFacts(devices=()))
NOTHING = node()
GB10 = Gpu(0, "NVIDIA GB10", None, pci="000f:01:00.0", persistence=False, temperature_c=40)
SPARK = node(
    gpu=GpuFacts(gpus=(GB10,), driver="580.95.05", kernel_driver="580.95.05", cuda="13.0", xids=(), open_module=True),
    machine=MachineFacts(
        product="NVIDIA_DGX_Spark",
        kernel="6.14.0-1013-nvidia",
        memory={"MemTotal": 120 * GIB, "MemAvailable": 110 * GIB, "MemFree": 90 * GIB, "Cached": 15 * GIB},
    ),
    stack=StackFacts(processes=()),
)
RUNNING = (RayProcess(77, "vllm"),)
PCIE = replace(H100, fabric_state="N/A", fabric_status=None, nvlinks=tuple(NvLink(i, active=False) for i in range(4)))


def of(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its GPU facts replaced."""
    return changed(base, gpu=fields)


def gpu(**fields: Any) -> NodeFacts:
    """The host with fields of its second GPU replaced."""
    return of(gpus=(H100, replace(SECOND, **fields)))


def machine(base: NodeFacts = HOST, **fields: Any) -> NodeFacts:
    """The host with fields of its machine replaced."""
    return changed(base, machine=fields)


def links(signs: str) -> tuple[NvLink, ...]:
    """NVLinks, + for an active one and - for another."""
    return tuple(NvLink(index, sign == "+", 26.562 if sign == "+" else None, 0) for index, sign in enumerate(signs))


def errors(count: int) -> tuple[NvLink, ...]:
    """NVLinks with errors on the first."""
    return (NvLink(0, active=True, gbps=26.562, errors=count), *LINKS[1:])


XID79 = "NVRM: Xid (PCI:0000:43:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID48 = "NVRM: Xid (PCI:0000:43:00): 48, pid=4711, name=python3, DBE (double bit error) ECC Error Ch 1"
XID31 = "NVRM: Xid (PCI:0000:43:00): 31, pid=4711, name=python3, MMU Fault"
SXID = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"
SOFT = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 11012, Non-fatal, Link 30 egress"
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
DOWN = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
NO_DRIVER: dict[str, Any] = {"gpus": (), "driver": None, "kernel_driver": None}
GB200 = of(gpus=(replace(H100, name="NVIDIA GB200"),), imex="READY")

EXAMPLES = examples(
    {
        "gpu.driver-loaded": {
            OK: HOST,
            FAIL: [
                machine(of(**NO_DRIVER, trouble=DOWN), modules=("nouveau",)),
                machine(of(**NO_DRIVER), modules=("snd",)),
            ],
            SKIP: LAPTOP,
            UNKNOWN: [NOTHING, machine(of(**NO_DRIVER), modules=None)],
        },
        "gpu.driver-matches": {
            OK: HOST,
            FAIL: [of(kernel_driver="570.124.06"), of(gpus=(), trouble=MISMATCH)],
            SKIP: LAPTOP,
            UNKNOWN: of(kernel_driver=None),
        },
        "gpu.answers": {OK: HOST, FAIL: of(gpus=(), trouble=DOWN), SKIP: LAPTOP, UNKNOWN: NOTHING},
        "gpu.all-seen": {
            OK: [HOST, of(gpus=(H100,), card_drivers={"0000:43:00.0": "vfio-pci"})],
            FAIL: of(gpus=(H100,)),
            SKIP: [LAPTOP, changed(of(gpus=(H100,)), container={"inside": "docker"})],
            UNKNOWN: of(cards=None),
        },
        "gpu.count-offered": {
            OK: replace(HOST, env={"SHOAL_NUM_GPUS": "2"}),
            FAIL: replace(HOST, env={"SHOAL_NUM_GPUS": "8"}),
            SKIP: HOST,
            UNKNOWN: [NOTHING, replace(NOTHING, env={"SHOAL_NUM_GPUS": "2"})],
        },
        "gpu.one-model": {OK: HOST, WARN: gpu(name="NVIDIA T400"), SKIP: LAPTOP, UNKNOWN: NOTHING},
        "gpu.persistence": {
            OK: [HOST, changed(gpu(persistence=False), gpu={"persistenced": True})],
            WARN: gpu(persistence=False),
            SKIP: [LAPTOP, SPARK],
            UNKNOWN: gpu(persistence=None),
        },
        "gpu.foreign-processes": {
            OK: [HOST, changed(of(processes=(GpuProcess(77, "python3", 9000),)), stack={"processes": RUNNING})],
            WARN: of(processes=(GpuProcess(4711, "/usr/bin/python3", 20000, "GPU-1"),)),
            SKIP: LAPTOP,
            UNKNOWN: of(processes=None),
        },
        "gpu.memory-free": {
            OK: HOST,
            WARN: gpu(used_mib=70000),
            SKIP: [LAPTOP, SPARK, changed(gpu(used_mib=70000), stack={"processes": RUNNING})],
            UNKNOWN: gpu(used_mib=None),
        },
        "gpu.compute-mode": {
            OK: HOST,
            FAIL: gpu(compute_mode="Prohibited"),
            SKIP: LAPTOP,
            UNKNOWN: gpu(compute_mode=None),
        },
        "gpu.mig-off": {OK: [HOST, SPARK], WARN: gpu(mig=True), SKIP: LAPTOP, UNKNOWN: NOTHING},
        "gpu.cuda-runtime": {
            OK: HOST,
            FAIL: changed(HOST, stack={"cuda_runtime": "13.0"}),
            SKIP: LAPTOP,
            UNKNOWN: [changed(HOST, stack={"cuda_runtime": None}), of(cuda=None)],
        },
        "gpu.gb10-memory": {
            OK: SPARK,
            FAIL: machine(SPARK, memory={"MemTotal": 120 * GIB, "MemAvailable": 30 * GIB}),
            SKIP: [HOST, LAPTOP, changed(SPARK, stack={"processes": RUNNING})],
            UNKNOWN: machine(SPARK, memory={}),
        },
        "gpu.gb10-page-cache": {
            OK: SPARK,
            WARN: machine(SPARK, memory={"MemTotal": 120 * GIB, "MemFree": 9 * GIB, "Cached": 100 * GIB}),
            SKIP: HOST,
            UNKNOWN: machine(SPARK, memory={}),
        },
        "gpu.gb10-gdr": {OK: SPARK, SKIP: [HOST, LAPTOP], UNKNOWN: NOTHING},
        "gpu.ecc-uncorrected": {OK: HOST, FAIL: gpu(ecc_uncorrected=3), SKIP: [SPARK, LAPTOP], UNKNOWN: NOTHING},
        "gpu.ecc-corrected": {OK: HOST, WARN: gpu(ecc_corrected=20000), SKIP: [SPARK, LAPTOP], UNKNOWN: NOTHING},
        "gpu.rows-remapped": {OK: HOST, FAIL: gpu(remap_pending=True), SKIP: [SPARK, LAPTOP], UNKNOWN: NOTHING},
        "gpu.remap-possible": {OK: HOST, FAIL: gpu(remap_failure=True), SKIP: [SPARK, LAPTOP], UNKNOWN: NOTHING},
        "gpu.on-bus": {OK: HOST, FAIL: of(xids=(("0000:43:00", 79, XID79),)), SKIP: LAPTOP, UNKNOWN: of(xids=None)},
        "gpu.xid": {
            OK: [HOST, of(xids=(("0000:43:00", 31, XID31), ("0000:43:00", 79, XID79)))],
            FAIL: of(xids=(("0000:43:00", 48, XID48),)),
            SKIP: LAPTOP,
            UNKNOWN: of(xids=None),
        },
        "gpu.sxid": {
            OK: [HOST, of(sxids=(SOFT,))],
            FAIL: of(sxids=(SOFT, SXID)),
            SKIP: LAPTOP,
            UNKNOWN: of(sxids=None),
        },
        "gpu.full-clocks": {
            OK: [HOST, gpu(throttle=("SW Power Cap",))],
            WARN: gpu(throttle=("HW Slowdown", "HW Thermal Slowdown")),
            SKIP: LAPTOP,
            UNKNOWN: gpu(throttle=None),
        },
        "gpu.temperature": {
            OK: HOST,
            WARN: gpu(temperature_c=84),
            SKIP: [SPARK, LAPTOP],
            UNKNOWN: gpu(temperature_c=None),
        },
        "gpu.nvlink-active": {
            OK: [HOST, of(gpus=(replace(PCIE, nvlinks=links("++--")),), switches=0)],
            FAIL: gpu(nvlinks=links("++-+")),
            SKIP: [LAPTOP, of(gpus=(PCIE, PCIE), switches=0), of(gpus=(replace(H100, nvlinks=()),))],
            UNKNOWN: of(gpus=(replace(H100, nvlinks=None),)),
        },
        "gpu.nvlink-equal": {
            OK: HOST,
            FAIL: gpu(nvlinks=links("+++")),
            SKIP: [LAPTOP, of(gpus=tuple(replace(PCIE, nvlinks=links("+"), index=i) for i in range(3)), switches=0)],
            UNKNOWN: of(gpus=(replace(H100, nvlinks=None),)),
        },
        "gpu.nvlink-speed": {
            OK: HOST,
            WARN: gpu(nvlinks=(NvLink(0, active=True, gbps=12.5, errors=0), *LINKS[1:])),
            SKIP: LAPTOP,
            UNKNOWN: of(gpus=(replace(H100, nvlinks=(NvLink(0, active=True),)),)),
        },
        "gpu.nvlink-errors": {
            OK: [HOST, replace(gpu(nvlinks=errors(9)), before=gpu(nvlinks=errors(7)))],
            WARN: replace(gpu(nvlinks=errors(9)), before=HOST),
            SKIP: [LAPTOP, gpu(nvlinks=errors(9))],
            UNKNOWN: of(gpus=(replace(H100, nvlinks=(NvLink(0, active=True),)),)),
        },
        "gpu.fabric-manager": {
            OK: HOST,
            FAIL: of(fabric_manager="failed"),
            SKIP: [LAPTOP, of(gpus=(PCIE,), switches=0), changed(HOST, container={"inside": "docker"})],
            UNKNOWN: [of(fabric_manager=None), of(gpus=(replace(H100, fabric_state=None),), switches=None)],
        },
        "gpu.fabric-ready": {
            OK: HOST,
            FAIL: gpu(fabric_state="In Progress", fabric_status="N/A"),
            SKIP: [LAPTOP, of(gpus=(PCIE,), switches=0)],
            UNKNOWN: gpu(fabric_state=None),
        },
        "gpu.imex": {
            OK: GB200,
            FAIL: changed(GB200, gpu={"imex": "NOT_READY"}),
            SKIP: [HOST, LAPTOP],
            UNKNOWN: changed(GB200, gpu={"imex": None}),
        },
        "gpu.pcie-width": {
            OK: HOST,
            WARN: gpu(pcie_width=8),
            SKIP: [LAPTOP, SPARK, machine(virtual="kvm")],
            UNKNOWN: gpu(pcie_width=None),
        },
        "gpu.pcie-speed": {
            OK: HOST,
            WARN: gpu(pcie_gen=3, utilisation=97),
            SKIP: [LAPTOP, SPARK, of(gpus=(replace(H100, pcie_gen=1),))],
            UNKNOWN: gpu(pcie_gen=None),
        },
        "gpu.numa-known": {
            OK: HOST,
            WARN: gpu(numa_node=-1),
            SKIP: [LAPTOP, machine(numa_nodes=1)],
            UNKNOWN: gpu(numa_node=None),
        },
        "gpu.gdr-path": {
            OK: [HOST, of(peermem=False)],
            WARN: of(peermem=False, open_module=False),
            SKIP: [LAPTOP, SPARK, changed(HOST, rdma={"devices": ()})],
            UNKNOWN: of(peermem=None, open_module=None),
        },
        "gpu.driver-floor": {
            OK: HOST,
            FAIL: of(driver="470.256.02"),
            SKIP: [LAPTOP, of(gpus=(replace(H100, name="NVIDIA L40S"),))],
            UNKNOWN: of(driver=None, kernel_driver=None),
        },
        "gpu.open-modules": {
            OK: SPARK,
            FAIL: of(SPARK, open_module=False),
            SKIP: [HOST, LAPTOP],
            UNKNOWN: of(SPARK, open_module=None),
        },
        "gpu.gb10-kernel": {
            OK: [SPARK, machine(SPARK, kernel="7.0.0-1019-nvidia", cmdline="quiet kho=off")],
            FAIL: [
                machine(SPARK, kernel="7.0.0-1019-nvidia", cmdline="quiet"),
                machine(SPARK, memory={"CmaTotal": 64, "CmaFree": 128}),
            ],
            SKIP: [HOST, LAPTOP],
            UNKNOWN: [machine(SPARK, kernel=None), machine(SPARK, kernel="7.0.0-1019-nvidia")],
        },
        "gpu.bar1": {
            OK: HOST,
            WARN: gpu(bar1_mib=256),
            SKIP: [LAPTOP, changed(of(gpus=(H100,)), rdma={"devices": ()})],
            UNKNOWN: gpu(bar1_mib=None),
        },
    }
)
