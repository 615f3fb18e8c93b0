# SPDX-License-Identifier: Apache-2.0
"""Multi-head attention for CPUs.

    from multihead import self_attention, multi_head_attention     from X and its weights to the output
    from multihead import attention, attention_weights, merge      between the projections: every mask and option
    from multihead import attention_backward                       its gradients
    from multihead import paged_attention                          over keys and values in pages
    from multihead import KvCache                                  keys and values that grow with their sequences
    from multihead import MultiHeadAttention, Encoder              layers and models with weights of their own
    from multihead import generate, Decoder, BytePair              texts that a decoder goes on with
    from multihead import explain, info, tasks_run                 what would run and why, what can run, what ran
    from multihead import inspect                                  what heads look at: numbers, labels, pages

Arrays of NumPy, PyTorch (on the CPU), ml_dtypes, and whatever else has the buffer protocol or DLPack go in without a
copy; results are of the kind that went in. Importing this package imports no framework.
"""

from ._attention import attention, attention_backward, attention_weights, merge, multi_head_attention, self_attention
from ._byte_pair import BytePair
from ._cache import KvCache
from ._core import __version__
from ._decoder import Decoder, DecoderExtents
from ._encoder import Encoder, EncoderExtents, Token
from ._generate import Generated, Generator, generate
from ._layer import Extents, MultiHeadAttention
from ._machine import Info, Plan, explain, get_num_threads, info, set_num_threads, tasks_run
from ._paged import paged_attention
from ._statistics import Label, Statistics, Summary
from ._types import AttentionGradients, AttentionOptions, RelativeBias, StatisticsRequest, WeightsRequest

__all__ = [
    "AttentionGradients", "AttentionOptions", "BytePair", "Decoder", "DecoderExtents", "Encoder", "EncoderExtents",
    "Extents", "Generated", "Generator", "Info", "KvCache", "Label", "MultiHeadAttention", "Plan", "RelativeBias",
    "Statistics", "StatisticsRequest", "Summary", "Token", "WeightsRequest", "__version__", "attention",
    "attention_backward", "attention_weights", "explain", "generate", "get_num_threads", "info", "merge",
    "multi_head_attention", "paged_attention", "self_attention", "set_num_threads", "tasks_run",
]
