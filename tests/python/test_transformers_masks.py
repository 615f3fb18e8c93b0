# SPDX-License-Identifier: Apache-2.0
"""Masks of Transformers stay ranges where ranges say them, and mean the same however they arrive."""

import copy
import pickle
import unittest
import unittest.mock

import torch
import transformers
import transformers_models as models
from transformers import masking_utils
from transformers_models import TOLERANCE, inputs_of, kernel, padding, pair

from multihead.transformers import MaskOfRanges, attention_forward

BATCH, HEADS, WIDTH = 2, 2, 8


implementation = "multihead"  # whose masks are made


def configuration(**more):
    made = transformers.MistralConfig(**models.GROUPED, **{"sliding_window": 4, **more})
    made._attn_implementation = implementation
    return made


def embeddings(length):
    return torch.zeros(BATCH, length, 4)


class Cache:
    """What masking_utils asks of a cache."""

    is_sliding = is_linear = is_dummy = [False]

    def __init__(self, seen, kv_length, kv_offset=0):
        self.sizes = seen, kv_length, kv_offset

    def get_query_offset(self, layer):
        return self.sizes[0]

    def get_mask_sizes(self, query_length, layer):
        return self.sizes[1:]


def causal(length=models.LENGTH, mask=None, cache=None, make=masking_utils.create_causal_mask, **more):
    return make(config=configuration(), inputs_embeds=embeddings(length), attention_mask=mask, cache=cache, **more)


def windowed(*arguments, **named):
    return causal(*arguments, make=masking_utils.create_sliding_window_causal_mask, **named)


def bidirectional(length=models.LENGTH, mask=None, make=masking_utils.create_bidirectional_mask, **more):
    return make(config=configuration(), inputs_embeds=embeddings(length), attention_mask=mask, **more)


def holes():
    mask = torch.ones(2, models.LENGTH, dtype=torch.long)
    mask[0, 3:5] = 0
    return mask


def as_seen(mask, q_len):
    """The keys that attention sees under a mask, (batch, 1, q_len, kv_len)."""
    q, k, v = operands(q_len, mask.shape[-1])
    return attention_forward(module(), q, k, v, mask, output_attentions=True)[1][:, :1] > 0


def module():
    return torch.nn.Identity()


def operands(q_len, kv_len, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda length: torch.randn(BATCH, HEADS, length, WIDTH, generator=generator).to(dtype)  # noqa: E731
    return draw(q_len), draw(kv_len), draw(kv_len)


class Ranges(models.WithoutGradients):
    def cases(self):
        """Name, mask, the options it becomes."""
        length, left, right = models.LENGTH, padding("left"), padding("right")
        static = torch.cat([torch.ones(2, 6), torch.zeros(2, 4)], 1).long()
        three = masking_utils.and_masks(masking_utils.causal_mask_function, masking_utils.sliding_window_overlay(6),
                                        masking_utils.sliding_window_bidirectional_overlay(3))
        make = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS[implementation]
        begun = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]])
        inside = torch.tensor([[0] * 3 + [1] * 8 + [0] * 3, [1] * 14])
        packed = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
        return [
            ("causal", causal(), {"causal", "query_offset"}),
            ("causal, all tokens", causal(mask=torch.ones(2, length)), {"causal", "query_offset"}),
            ("causal, right", causal(mask=right), {"causal", "query_offset", "lengths"}),
            ("causal, left", causal(mask=left), {"causal", "segments"}),
            ("causal, holes", causal(mask=holes()), {"causal", "query_offset", "keep_mask"}),
            ("causal, both sides", causal(mask=inside), {"causal", "query_offset", "keep_mask"}),
            ("causal, one step", causal(1, cache=Cache(13, 14)), {"causal", "query_offset"}),
            ("causal, one step, left", causal(1, left, Cache(13, 14)), {"causal", "segments"}),
            ("causal, three steps, left", causal(3, left, Cache(11, 14)), {"causal", "segments"}),
            ("causal, steps inside the padding", causal(12, left, Cache(2, 14)), {"causal", "segments"}),
            ("causal, static", causal(6, static, Cache(torch.tensor(0), 10)), {"causal", "query_offset", "lengths"}),
            ("causal, static, no mask", causal(2, None, Cache(torch.tensor(4), 10)), {"causal", "query_offset"}),
            ("causal, static, left", causal(2, begun, Cache(4, 10)), {"causal", "segments"}),
            ("window", windowed(), {"causal", "window", "query_offset"}),
            ("window, left", windowed(mask=left), {"causal", "window", "segments"}),
            ("window, right", windowed(mask=right), {"causal", "window", "query_offset", "lengths"}),
            ("window, cut cache", windowed(2, None, Cache(9, 5, 6)), {"causal", "window", "query_offset"}),
            ("packed", causal(position_ids=packed), {"causal", "segments"}),
            ("packed, window", windowed(position_ids=packed), {"causal", "window", "segments"}),
            ("bidirectional", bidirectional(), set()),
            ("bidirectional, right", bidirectional(mask=right), {"lengths"}),
            ("bidirectional, left", bidirectional(mask=left), {"keep_mask"}),
            ("bidirectional, window", bidirectional(make=masking_utils.create_bidirectional_sliding_window_mask),
             {"window", "query_offset"}),
            ("three at once", make(BATCH, 9, 9, mask_function=three), {"causal", "window", "query_offset"}),
            ("cross", bidirectional(5, right, encoder_hidden_states=embeddings(length)), {"lengths"}),
        ]

    def test_what_a_mask_becomes(self):
        for name, mask, options in self.cases():
            with self.subTest(mask=name):
                self.assertIsInstance(mask, MaskOfRanges)
                self.assertEqual(mask.options.keys(), options)
                if "keep_mask" in options:  # of the padding alone
                    self.assertEqual(mask.options["keep_mask"].numel(), BATCH * mask.shape[-1])

    def test_elements_are_those_of_eager(self):
        global implementation
        ours = self.cases()
        implementation = "eager"
        try:
            eagers = self.cases()
        finally:
            implementation = "multihead"
        for (name, mask, _), (_, wanted, _) in zip(ours, eagers, strict=True):
            with self.subTest(mask=name):
                seen = torch.ones(mask.shape, dtype=torch.bool) if wanted is None else wanted == 0
                self.assertTrue(torch.equal(mask.elements(), seen))

    def test_a_row_sees_the_keys_that_its_elements_say(self):
        for name, mask, _ in self.cases():
            with self.subTest(mask=name):
                q, k, v = operands(*mask.shape[2:])
                elements = mask.elements()
                self.assertEqual(elements.shape, mask.shape)
                ranges, range_weights = attention_forward(module(), q, k, v, mask, output_attentions=True)
                dense, weights = attention_forward(module(), q, k, v, elements, output_attentions=True)
                self.assertTrue(torch.equal(range_weights > 0, weights > 0))
                self.assertTrue(torch.equal(range_weights > 0, elements.expand(-1, HEADS, -1, -1)))
                if "segments" in mask.options:  # sums count from the first key of the sequence
                    self.assertLess((ranges - dense).abs().max(), 1e-5)
                else:
                    self.assertTrue(torch.equal(ranges, dense))

    def test_operations_see_the_elements(self):
        mask = causal(mask=padding("left"))
        elements = mask.elements()
        for use in (lambda m: m[:, :, :, :5], lambda m: ~m, lambda m: torch.where(m, 0.0, -1.0), lambda m: m.clone(),
                    lambda m: torch.cat([m, m], -1), lambda m: m.expand(-1, HEADS, -1, -1)):
            self.assertNotIsInstance(use(mask), MaskOfRanges)
            self.assertTrue(torch.equal(use(mask), use(elements)))
        self.assertIn("keep_mask", repr(mask))
        self.assertIn("segments", repr(causal(mask=padding("left"))))

    def test_writing(self):
        """What is written to a mask, or through a view of it, is in the elements and in the result."""
        changes = {
            "setitem": lambda mask: mask.__setitem__((Ellipsis, slice(1, 4)), True),
            "setitem of a row": lambda mask: mask.__setitem__((0, 0, 9), False),
            "fill_": lambda mask: mask.fill_(True),
            "logical_and_": lambda mask: mask.logical_and_(torch.ones(models.LENGTH, models.LENGTH).tril(-1).bool()),
            "through a view": lambda mask: mask[:, :, 3:].select(3, 0).fill_(False),
            "masked_fill_": lambda mask: mask.masked_fill_(torch.ones(models.LENGTH).bool(), False),
            "out": lambda mask: torch.logical_not(mask.clone(), out=mask),
            "foreach": lambda mask: torch._foreach_zero_([mask]),
        }
        q, k, v = operands(models.LENGTH, models.LENGTH)
        for name, change in changes.items():
            with self.subTest(change=name):
                mask, plain = causal(mask=padding("left")), causal(mask=padding("left")).elements()
                change(mask)
                change(plain)
                self.assertTrue(torch.equal(mask.elements(), plain))
                self.assertFalse(torch.equal(plain, causal(mask=padding("left")).elements()))
                for left, right in zip(attention_forward(module(), q, k, v, mask, output_attentions=True),
                                       attention_forward(module(), q, k, v, plain, output_attentions=True)):
                    self.assertTrue(torch.equal(left, right))
        mask = causal()
        self.assertIs(mask.fill_(True), mask)
        mask &= torch.zeros(1, dtype=torch.bool)
        self.assertIsInstance(mask, MaskOfRanges)
        self.assertFalse(mask.any())
        mask = causal()
        torch.zeros(mask.shape, dtype=torch.bool).logical_or_(mask)  # only read
        self.assertIn("causal", mask.options)
        with self.assertRaisesRegex(NotImplementedError, "MaskOfRanges: aten.unsqueeze_.* changes the shape"):
            mask.unsqueeze_(0)

    def test_copies(self):
        for change in (lambda mask: None, lambda mask: mask.fill_(True)):
            mask = causal(mask=padding("left"))
            change(mask)
            wanted = mask.elements().clone()
            deep, read = copy.deepcopy(mask), pickle.loads(pickle.dumps(mask))
            self.assertEqual((type(deep), deep.options.keys()), (MaskOfRanges, mask.options.keys()))
            self.assertIs(type(read), torch.Tensor)
            mask.zero_()
            for other in (deep, read):
                self.assertTrue(torch.equal(other.clone(), wanted))
            deep.zero_()
            self.assertFalse(deep.elements().any() or deep.options["keep_mask"].any())

    def test_tracers_get_elements(self):
        for name in ("torch.compiler.is_compiling", "torch.jit.is_tracing"):
            with unittest.mock.patch(name, return_value=True):
                mask = causal(mask=padding("left"))
            self.assertIs(type(mask), torch.Tensor)
            self.assertTrue(torch.equal(mask, causal(mask=padding("left")).elements()))

    def test_packed_sequences_that_no_segments_say(self):
        make = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS[implementation]
        ids = torch.tensor([[0] * 5 + [1] * 4] * BATCH)
        places = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]] * BATCH)
        packed = masking_utils.and_masks(masking_utils.causal_mask_function, masking_utils.packed_sequence_mask_function(ids))
        remapped = masking_utils.and_masks(
            masking_utils.remap_positions_for_packed_sequence(masking_utils.causal_mask_function, places),
            masking_utils.packed_sequence_mask_function(ids))
        real = torch.ones(BATCH, 9, dtype=torch.bool)
        real[:, :2] = False
        for function in (packed, remapped):
            whole = masking_utils.sdpa_mask(BATCH, 9, 9, mask_function=packed, allow_is_causal_skip=False)
            padded = make(BATCH, 9, 9, mask_function=function, attention_mask=real)
            self.assertTrue(torch.equal(as_seen(padded, 9), whole & real[:, None, None]))
            step = make(BATCH, 2, 9, 7, mask_function=function)
            self.assertTrue(torch.equal(as_seen(step, 2), whole[:, :, 7:]))

    def test_other_functions_are_evaluated(self):
        left = padding("left")
        blocks = torch.tensor([[-1] * 4 + [0] * 6 + [-1] * 4] * 2)
        chunked = configuration(attention_chunk_size=3)
        masks = {
            "or": causal(or_mask_function=lambda batch, head, q, kv: kv < 2),
            "and": causal(mask=left, and_mask_function=lambda batch, head, q, kv: kv != 5),
            "blocks": causal(mask=left, block_sequence_ids=blocks),
            "chunks": masking_utils.create_chunked_causal_mask(chunked, embeddings(models.LENGTH), left, None),
        }
        for name, mask in masks.items():
            with self.subTest(mask=name):
                self.assertNotIsInstance(mask, MaskOfRanges)
                self.assertEqual((mask.dtype, mask.shape), (torch.bool, (BATCH, 1, models.LENGTH, models.LENGTH)))
                q, k, v = operands(models.LENGTH, models.LENGTH)
                _, weights = attention_forward(module(), q, k, v, mask, output_attentions=True)
                self.assertTrue(torch.equal(weights > 0, mask.expand(-1, HEADS, -1, -1)))
        self.assertFalse(torch.equal(masks["or"], causal().elements()))


class Bits(models.WithoutGradients):
    def sequence_of(self, mask, first, end, q, k, v):
        """Rows first to end of entry 0, alone and in the padded batch."""
        padded, _ = attention_forward(module(), q, k, v, mask)
        alone = [tensor[:1, :, first:end] for tensor in (q, k, v)]
        unpadded = masking_utils.create_causal_mask(configuration(), torch.zeros(1, end - first, 4), None, None)
        return padded[:1, first:end], attention_forward(module(), *alone, unpadded)[0]

    def test_padding_changes_no_bit(self):
        length = 300  # three blocks of keys
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = operands(length, length, dtype)
            for side, (first, end) in {"right": (0, 263), "left": (37, 300)}.items():
                with self.subTest(padding=side, dtype=dtype):
                    mask = torch.ones(BATCH, length, dtype=torch.long)
                    mask[0, :first] = 0
                    mask[0, end:] = 0
                    padded, alone = self.sequence_of(causal(length, mask), first, end, q, k, v)
                    self.assertTrue(torch.equal(padded, alone))

    def test_a_step_has_the_bits_of_the_whole(self):
        length = 300
        q, k, v = operands(length, length)
        mask = torch.ones(BATCH, length, dtype=torch.long)
        mask[0, :37] = 0
        whole, _ = attention_forward(module(), q, k, v, causal(length, mask))
        step, _ = attention_forward(module(), q[:, :, -1:], k, v, causal(1, mask, Cache(length - 1, length)))
        self.assertTrue(torch.equal(whole[:, -1:], step))


class Given(models.WithoutGradients):
    """Masks that the caller of a model makes."""

    def test_four_axes(self):
        eager, ours = pair("llama")
        seen = torch.ones(2, 1, models.LENGTH, models.LENGTH, dtype=torch.bool).tril()
        seen[:, :, 8:, 2:4] = False
        added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        wanted = eager(**inputs_of("llama", added)).logits
        for name, mask, option in (("bool", seen, "keep_mask"), ("float", added, "bias")):
            with self.subTest(mask=name), kernel() as ran:
                got = ours(**inputs_of("llama", mask)).logits
                self.assertLess((got - wanted).abs().max(), TOLERANCE)
                self.assertTrue(all(option in options for options in ran.options))
        self.assertGreater((ours(**inputs_of("llama")).logits - wanted).abs().max(), 100 * TOLERANCE)

    def test_floating_beside_a_position_bias(self):
        eager, ours = pair("t5")
        added = torch.zeros(2, 1, 1, models.LENGTH)
        added[0, :, :, 3:7] = -3.0
        wanted = eager(**inputs_of("t5", added)).logits
        self.assertLess((ours(**inputs_of("t5", added)).logits - wanted).abs().max(), TOLERANCE)
        self.assertGreater((ours(**inputs_of("t5")).logits - wanted).abs().max(), 100 * TOLERANCE)

    def test_packed_sequences(self):
        for name in ("llama", "mistral", "gpt_oss"):
            with self.subTest(model=name):
                eager, ours = pair(name)
                ids = models.tokens()
                places = torch.cat([torch.arange(5), torch.arange(models.LENGTH - 5)]).expand(2, -1)
                wanted = eager(ids, position_ids=places, use_cache=False).logits
                got = ours(ids, position_ids=places, use_cache=False).logits
                self.assertLess((got - wanted).abs().max(), TOLERANCE)
                self.assertGreater((ours(ids).logits - wanted).abs().max(), 100 * TOLERANCE)

    def test_padding_with_holes(self):
        for name in ("bert", "mistral", "t5"):
            with self.subTest(model=name):
                eager, ours = pair(name)
                difference = ours(**inputs_of(name, holes())).logits - eager(**inputs_of(name, holes())).logits
                if name != "t5":
                    difference = difference[holes().bool()]
                self.assertLess(difference.abs().max(), TOLERANCE)

    def test_no_mask(self):
        q, k, v = operands(5, 5)
        asked = {"output_attentions": True}
        causal_weights = attention_forward(module(), q, k, v, None, is_causal=True, **asked)[1]
        self.assertTrue(torch.equal(causal_weights > 0, torch.ones(BATCH, HEADS, 5, 5).tril() > 0))
        near = attention_forward(module(), q, k, v, None, is_causal=True, sliding_window=2, **asked)[1]
        self.assertEqual((near > 0).sum().item(), BATCH * HEADS * 9)
        for row, options in ((q, {"is_causal": False}), (q[:, :, :1], {"is_causal": True}), (q[:, :, :1], {})):
            weights = attention_forward(module(), row, k, v, None, **options, **asked)[1]
            self.assertTrue(bool((weights > 0).all()))


if __name__ == "__main__":
    unittest.main()
