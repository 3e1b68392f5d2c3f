"""How the answer depends on the strength of selection, and how much of that strength the log itself tells.

The selection between the ends of the scale is held at several values, everything else is fitted again, and the joint
bounds are compared: a profile likelihood, as far as the bound is tight (``profile``). A flat profile means that the log
does not tell, and that what is predicted rests on the stated sign and on priors. A steep one means that it tells if the
decoder and the missing model have the right form; of that no log can say anything. Where training stopped on held-out
users, it is their bounds, since weights that are points overfit and slopes with them.

An explanation that says the same of a log can lie far from the fitted one, such as its mirror image with the opposite
selection (Zhang et al., ICDE 2024). So where the selection is held at nothing or at the opposite sign, three fits are
made and the best is kept: from the fitted weights, from the model whose law of what a log shows is nearest to the
fitted one's, and from new weights (``starts``). How near that law comes is a finding of its own, free of priors and of
noise: below two nats over the whole log, no log of this size tells the two models apart (``law``). What that comes to
is said in words (``verdict``).
"""

from mnar_recsys.sensitivity.profile import default_grid, selection_profile
from mnar_recsys.sensitivity.verdict import PLAUSIBLE, TOP_N, Profile, ProfilePoint

__all__ = ["PLAUSIBLE", "TOP_N", "Profile", "ProfilePoint", "default_grid", "selection_profile"]
