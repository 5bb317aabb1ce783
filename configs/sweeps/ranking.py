"""Do losses of ranks, or proxies, beat semi-hard triplets once all are tuned alike?

    python -m experiments.sweep --config=configs/sweeps/ranking.py --workdir=runs/ranking

Each paper says that its loss beats triplets: SmoothAP (Brown et al. 2020), FastAP (Cakir et al.
2019), the surrogate of Recall@k (Patel et al. 2022), PNP (Li et al. 2021), ranked list (Wang et al.
2019), proxy-NCA, proxy-anchor, ArcFace, CosFace and SoftTriple. Musgrave et al. 2020 find them
about level after equal tuning. Every arm has eight trials, of the learning rate and of its own
numbers, and the proxies' rate is one of them; configs/sweeps/contrastive.py had it at 1, where
proxies lose.
"""

from configs.base import CONTRASTIVE
from configs.sweeps import drawn
from configs.tune.base import between

_RATE = {"optimizer.learning_rate": between(3e-4, 1e-2, log=True)}
_STEEP = _RATE | {"loss.knobs.temperature": between(0.005, 0.2, log=True)}
_PROXIES = _RATE | {"optimizer.proxies_rate": between(1.5, 100.0, log=True)}
_SCALED = _PROXIES | {"loss.knobs.scale": between(8.0, 64.0, log=True)}
_MARGIN = "loss.knobs.margin"
RANGES = {
    "smooth_ap": _STEEP,
    "fast_ap": _RATE,
    "recall_at_k": _STEEP | {"loss.knobs.rank_temperature": between(0.3, 3.0, log=True)},
    "pnp": _STEEP | {"loss.knobs.power": between(1.0, 4.0)},
    "ranked_list": _RATE
    | {
        "loss.knobs.temperature": between(0.03, 0.5, log=True),
        _MARGIN: between(0.1, 0.8, log=True),
    },
    "proxy_nca": _PROXIES | {"loss.knobs.temperature": between(0.02, 0.3, log=True)},
    "proxy_anchor": _SCALED | {_MARGIN: between(0.05, 0.3, log=True)},
    "arcface": _SCALED | {_MARGIN: between(0.05, 0.6, log=True)},
    "cosface": _SCALED | {_MARGIN: between(0.05, 0.5, log=True)},
    "soft_triple": _SCALED | {_MARGIN: between(0.005, 0.1, log=True)},
}


def get_config():
    of_triplets = _RATE | {"loss.margin": between(0.05, 0.8, log=True)}
    sweep = drawn.tuned_alike(
        {"semi_hard": ({"mining.miner": "semi_hard"}, of_triplets)}
        | {name: (CONTRASTIVE[name], ranges) for name, ranges in RANGES.items()}
    )
    sweep.claim = "Losses of ranks and proxies beat semi-hard triplets, tuned alike"
    sweep.source = "each loss in its paper; Musgrave et al. 2020 disagree"
    sweep.reference = "semi_hard"
    return sweep
