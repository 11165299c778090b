from captioning.models.ops.additive_kernel import additive_scores as additive_scores
from captioning.models.ops.fast_dropout import Dropout as Dropout
from captioning.models.ops.fast_dropout import dropout as dropout
from captioning.models.ops.packing import Layout as Layout
from captioning.models.ops.prefixes import Prefixes as Prefixes
from captioning.models.ops.products import linear as linear
from captioning.models.ops.products import mixed as mixed
from captioning.models.ops.products import summed_at_once as summed_at_once

__all__: list[str]
