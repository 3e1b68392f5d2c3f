"""Every method of the comparison by name: the one table that scripts, tuning and tests go through."""

from baselines.autodebias import AutoDebias
from baselines.autorec import AutoRecItem, AutoRecUser
from baselines.base import Baseline
from baselines.bias import BiasBaseline
from baselines.constant import ConstantMcar, ConstantTrain
from baselines.cptv import CptV
from baselines.deconfounded_pmf import DeconfoundedPmf
from baselines.doubly_robust import MfDrJl, NfmDrJl
from baselines.dt_dr import DtDr
from baselines.gaussian_vae import GaussianVae
from baselines.gina import Gina
from baselines.label_baselines import MfLabels, MfRecalibrated
from baselines.logit_vd import LogitVd
from baselines.mf import Mf
from baselines.mf_ips import MfIps, MfIpsMul, MfSnips
from baselines.mf_mnar import MfMnar
from baselines.mrdr import Mrdr
from baselines.pmf import Pmf
from baselines.stable_dr import StableDr
from baselines.tdr import Tdr

BASELINES: dict[str, type[Baseline]] = {
    "constant_train": ConstantTrain,
    "constant_mcar": ConstantMcar,
    "bias": BiasBaseline,
    "mf": Mf,
    "mf_recalibrated": MfRecalibrated,
    "mf_labels": MfLabels,
    "pmf": Pmf,
    "autorec_user": AutoRecUser,
    "autorec_item": AutoRecItem,
    "gaussian_vae": GaussianVae,
    "deconfounded_pmf": DeconfoundedPmf,
    "cptv": CptV,
    "logit_vd": LogitVd,
    "mf_mnar": MfMnar,
    "gina": Gina,
    "mf_ips": MfIps,
    "mf_snips": MfSnips,
    "mf_dr_jl": MfDrJl,
    "nfm_dr_jl": NfmDrJl,
    "mrdr": Mrdr,
    "stable_dr": StableDr,
    "tdr": Tdr,
    "dt_dr": DtDr,
    "mf_ips_mul": MfIpsMul,
    "autodebias": AutoDebias,
}
"""Name to class; ``BASELINES[name]()`` has settings that work unattended."""
