# SPDX-License-Identifier: Apache-2.0
"""A cache of Transformers that keeps keys and values in a multihead.KvCache, and attention that reads them there."""

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

import multihead

_STORAGES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class CachedStates(torch.Tensor):
    """Keys or values (batch, kv_heads, kv_len, width) of a layer that lie in a KvCache.

    Attention of attn_implementation="multihead" reads them there. Any operation of torch on them computes on an ordinary
    tensor, which is then read from the cache for it.
    """

    @staticmethod
    def __new__(cls, cache, layer, which, like, shape):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)

    def __init__(self, cache, layer, which, like, shape):
        self.cache, self.layer, self._which = cache, layer, which

    def elements(self):
        """An ordinary tensor of what the cache holds."""
        return self.cache._read(self.layer, self.shape[2], self.dtype)[self._which]

    def __repr__(self):
        return f"CachedStates(shape={tuple(self.shape)}, layer={self.layer})"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        def plain(value):
            if isinstance(value, CachedStates):
                return value.elements()
            return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
        return function(*map(plain, arguments), **{name: plain(value) for name, value in (named or {}).items()})


class _Layer(CacheLayerMixin):
    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, cache, index):
        super().__init__()
        self.cache, self.index = cache, index

    def lazy_initialization(self, key_states, value_states):
        self.cache._open(key_states, value_states)
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self.cache._append(self.index, key_states, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length):
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self):
        return self.cache._length(self.index)

    def get_max_length(self):
        return self.cache.max_length


class KvCache(Cache):
    """The cache for generate(): keys and values lie where attention reads them, and nothing is joined or copied in a step.

        cache = multihead.transformers.KvCache(model.config, max_length=512)
        model.generate(ids, cache=cache, max_new_tokens=100)

    config: of the model, which must have attn_implementation="multihead" to read the cache where it lies. max_length: the
    most positions of a sequence. storage: None, the type of the model's keys (float32, bfloat16 or float16), or "int8" with a
    scale for each position of a head. page_len: positions of a page, a multiple of 32; sequences that are reordered (beams)
    or repeated share pages until they differ. Memory is taken by the first update, for its batch, or for `sequences`.

    Layers of a sliding window are kept whole. A token has the bits that it has in one call over all of its text. Raises
    ValueError where a sequence would become longer than max_length, NotImplementedError for keys that want gradients.
    """

    def __init__(self, config, max_length, *, sequences=None, storage=None, page_len=128):
        if storage not in (None, "int8"):
            raise ValueError(f"KvCache: storage is {storage!r}; it must be None, for the type of the model's keys, or \"int8\"")
        config = config.get_text_config(decoder=True)
        super().__init__(layers=[_Layer(self, index) for index in range(config.num_hidden_layers)])
        self.max_length, self._wanted, self._storage, self._page_len = int(max_length), sequences, storage, page_len
        self.store, self.sequences = None, []  # a multihead.KvCache and the names of the batch's sequences in it

    def _open(self, key_states, value_states):
        """Takes the memory, and begins a sequence for each entry of the batch."""
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            raise NotImplementedError("KvCache: the keys want gradients, which a cache does not keep; torch.no_grad() runs "
                                      "the model without, as generate() does")
        if key_states.dtype not in _STORAGES:
            raise TypeError(f"KvCache: keys are {key_states.dtype}; they must be float32, bfloat16 or float16")
        batch = key_states.shape[0]
        if self.store is None:
            pages = -(-self.max_length // self._page_len) * max(batch, self._wanted or batch)
            self.store = multihead.KvCache(
                key_states.shape[1], key_states.shape[3], value_dim=value_states.shape[3], layers=len(self.layers),
                storage=self._storage or _STORAGES[key_states.dtype], pages=pages, page_len=self._page_len)
        if not self.sequences:
            self.sequences = [self.store.add() for _ in range(batch)]
        if len(self.sequences) != batch:
            raise ValueError(f"KvCache: keys have batch {batch}, the cache has {len(self.sequences)} sequences; they must be "
                             "equal, or reset() the cache")

    def _append(self, layer, key_states, value_states):
        length = self._length(layer) + key_states.shape[2]
        if length > self.max_length:
            raise ValueError(f"KvCache: {key_states.shape[2]} positions after {self._length(layer)} are more than max_length "
                             f"{self.max_length}")
        states = [states.detach() for states in (key_states, value_states)]
        states = [part if part.stride(3) == 1 or part.shape[3] == 1 else part.contiguous() for part in states]
        self.store.append(layer, self.sequences, *states)
        return [CachedStates(self, layer, which, part, (*part.shape[:2], length, part.shape[3]))
                for which, part in enumerate(states)]

    def _read(self, layer, length, dtype):
        """(keys, values) of the first positions as tensors (batch, kv_heads, length, width)."""
        kept = torch.float32 if self._storage == "int8" else dtype
        found = [torch.empty((len(self.sequences), *part.shape[1:2], length, part.shape[3]), dtype=kept)
                 for part in (self.layers[layer].keys, self.layers[layer].values)]
        for entry, sequence in enumerate(self.sequences):
            self.store.read(layer, sequence, out=(found[0][entry], found[1][entry]))
        return [part.to(dtype) for part in found]

    def _length(self, layer):
        return self.store.length(self.sequences[0], layer) if self.sequences else 0

    def _take(self, sequences):
        """Makes these, forks of the sequences at hand, the cache's sequences."""
        for sequence in self.sequences:
            self.store.remove(sequence)
        self.sequences = sequences

    def _fork(self, entries):
        if self.sequences:
            self._take([self.store.fork(self.sequences[entry]) for entry in entries])

    def reorder_cache(self, beam_idx):
        """Entry i becomes what entry beam_idx[i] was: pages are shared, not copied."""
        self._fork(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats):
        """Each sequence as often, one beside the other; their pages are shared."""
        self._fork([entry for entry in range(len(self.sequences)) for _ in range(repeats)])

    def batch_select_indices(self, indices):
        """Keeps these sequences: integers, or a boolean for each."""
        self._fork(torch.arange(len(self.sequences))[indices].reshape(-1).tolist())

    def crop(self, tokens_to_remove):
        """Forgets so many tokens, which are given as a negative number."""
        if tokens_to_remove > 0:
            raise ValueError(f"KvCache: crop({tokens_to_remove}) is positive; the tokens to remove are given as a negative number")
        for sequence in self.sequences:
            self.store.truncate(sequence, max(self.store.length(sequence) + tokens_to_remove, 0))

    def reset(self):
        """Forgets all sequences; the memory stays."""
        self._take([])
        for layer in self.layers:
            layer.keys = layer.values = None


def attend(query, key, options):
    """out (batch, q_len, heads, value_dim) of queries over the cache that the keys name, or None where it is not all of it."""
    cache, layer = key.cache, key.layer
    if cache._length(layer) != key.shape[2] or len(cache.sequences) != query.shape[0]:
        return None
    values = cache.layers[layer].values
    out = torch.empty((query.shape[0], query.shape[2], query.shape[1], values.shape[3]), dtype=query.dtype)
    cache.store.attention(query, layer, cache.sequences, out=out.transpose(1, 2), **options)
    return out
