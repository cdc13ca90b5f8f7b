"""How the fabric is used: rails, exact device names, the GID, the control plane; each setting with its reason.

NCCL's own choices come from ``shoal.nccl``, and a setting is written only where they would be wrong.
"""

from shoal.plan.fabric.choose import plan_fabric
from shoal.plan.fabric.document import document
from shoal.plan.fabric.types import Fabric, FabricSetting, HcaPort, NodeFabric, Rail

__all__ = ["Fabric", "FabricSetting", "HcaPort", "NodeFabric", "Rail", "document", "plan_fabric"]
