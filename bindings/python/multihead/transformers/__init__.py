# SPDX-License-Identifier: Apache-2.0
"""Importing this registers attn_implementation="multihead" with Hugging Face Transformers.

    import multihead.transformers
    model = AutoModel.from_pretrained(folder, attn_implementation="multihead")

Every attention of the model that goes through Transformers' attention interface then runs on multihead.attention, on
CPU tensors of float32, float64, bfloat16 and float16; multihead.tasks_run() counts what ran. Weights are computed when
output_attentions asks for them, and change no bit of the output.

    cache = multihead.transformers.KvCache(model.config, max_length=512)
    model.generate(ids, cache=cache)                                       # keys and values stay where attention reads them

A model of which no module goes through the interface is refused when it is made, and modules that look like attention
and do not go through it are named in a warning. Keyword arguments that are not known are refused when the model runs. It can
be trained, with attention dropout; second derivatives and forward-mode differentiation raise NotImplementedError.
"""

import inspect

import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import masking_utils

from ._attention import attention_forward
from ._cache import CachedStates, KvCache
from ._masks import MaskOfRanges, attention_mask
from ._models import NAME, install

__all__ = ["NAME", "CachedStates", "KvCache", "MaskOfRanges", "attention_forward", "attention_mask"]


def _check_version():
    wanted = {"q_length", "q_offset", "kv_offset", "use_vmap"}
    if not wanted <= set(inspect.signature(masking_utils.sdpa_mask).parameters):
        raise ImportError(
            f"multihead.transformers: transformers is {transformers.__version__}; its masks must be described by "
            "q_length and q_offset, which those of 5.24 are")


_check_version()
AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, attention_mask)
install()
