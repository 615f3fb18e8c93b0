# SPDX-License-Identifier: Apache-2.0
"""Random layers of Keras (its NumPy back end) and Flax (JAX) with their outputs, for layer_runner.

  keras_flax_cases.py FOLDER
"""

import os
import random
import sys
import warnings

os.environ["KERAS_BACKEND"] = "numpy"
os.environ["JAX_PLATFORMS"] = "cpu"

import flax  # noqa: E402
import flax.linen  # noqa: E402
import flax.traverse_util  # noqa: E402
import jax  # noqa: E402
import keras  # noqa: E402
import numpy  # noqa: E402
from case_writer import CaseWriter  # noqa: E402

EXACT = 2e-14
FLOAT32_INSIDE = 3e-6  # Keras's NumPy back end multiplies in float32, whatever the type of the layer


def mask_of(generator, shape):
    """True keeps; every row keeps its first key."""
    mask = generator.random(shape) < 0.6
    mask[..., 0] = True
    return mask


def keras_case(writer, pick, generator, index):
    heads, grouped = pick.choice([1, 2, 4]), pick.random() < 0.4
    kv_heads = pick.choice([n for n in (1, 2, 4) if heads % n == 0])
    width, model = pick.choice([3, 8, 10]), pick.randrange(1, 40)
    batch, q_len, kv_len = pick.choice([1, 2]), pick.choice([1, 6, 20]), pick.choice([1, 5, 40])
    bias = pick.random() < 0.6
    if grouped:
        layer = keras.layers.GroupQueryAttention(head_dim=width, num_query_heads=heads, num_key_value_heads=kv_heads,
                                                   use_bias=bias, dtype="float64")
    else:
        layer = keras.layers.MultiHeadAttention(heads, width, value_dim=pick.choice([None, 7]), use_bias=bias,
                                                output_shape=pick.choice([None, 13]), dtype="float64")
    query = generator.standard_normal((batch, q_len, model))
    other = model if grouped else pick.randrange(1, 40)
    key = generator.standard_normal((batch, kv_len, other))
    value = generator.standard_normal((batch, kv_len, other if grouped else pick.randrange(1, 40)))
    layer.build(query.shape, value.shape, key.shape)
    for weight in layer.weights:
        weight.assign(generator.standard_normal(weight.shape) / max(weight.shape[0], 1) ** 0.5)
    mask = mask_of(generator, (batch, q_len, kv_len)) if pick.random() < 0.6 else None
    output, weights = layer(query, value, key, attention_mask=mask, return_attention_scores=True)
    prefix = layer.weights[0].path.split("/")[0] + "/"
    facts = {"prefix": prefix, "heads": heads}
    if grouped:
        facts["kv_heads"] = kv_heads
    arrays = {"query": query, "key": key, "value": value, "output": numpy.asarray(output),
              "weights": numpy.asarray(weights)}
    if mask is not None:
        arrays["keep_mask"] = mask[:, None]
    tensors = {weight.path: numpy.asarray(weight.value) for weight in layer.weights}
    writer.case(f"keras_{index}_{'grouped' if grouped else 'plain'}", "keras", tensors, facts, arrays, FLOAT32_INSIDE)


def flax_case(writer, pick, generator, index):
    heads, width, model = pick.choice([1, 2, 3]), pick.choice([2, 5, 16]), pick.randrange(1, 40)
    batch, q_len, kv_len = pick.choice([1, 2]), pick.choice([1, 6, 20]), pick.choice([1, 5, 40])
    normed = pick.random() < 0.5
    module = flax.linen.MultiHeadDotProductAttention(
        num_heads=heads, qkv_features=heads * width, out_features=pick.choice([None, 11]), normalize_qk=normed,
        use_bias=pick.random() < 0.6, dtype="float64", param_dtype="float64")
    query = generator.standard_normal((batch, q_len, model))
    key = generator.standard_normal((batch, kv_len, model))
    mask = mask_of(generator, (batch, heads, q_len, kv_len)) if pick.random() < 0.6 else None
    parameters = jax.eval_shape(module.init, jax.random.PRNGKey(index), query, key, key)
    flat = flax.traverse_util.flatten_dict(parameters["params"], sep="/")
    flat = {name: generator.standard_normal(value.shape) / max(value.shape[0], 1) ** 0.5 + name.endswith("scale")
            for name, value in flat.items()}
    tree = {"params": flax.traverse_util.unflatten_dict(flat, sep="/")}
    output = module.apply(tree, query, key, key, mask=mask)
    arrays = {"query": query, "key": key, "value": key, "output": numpy.asarray(output)}
    if mask is not None:
        arrays["keep_mask"] = mask
    tensors = {"encoder/attention/" + name: value for name, value in flat.items()}
    # Flax takes the variance as E[x^2] - E[x]^2: for two channels that are alike it loses digits.
    writer.case(f"flax_{index}_{'normed' if normed else 'plain'}", "flax", tensors,
                {"prefix": "encoder/attention/", "heads": heads, "eps": 1e-6}, arrays, 1e-13 if normed else EXACT)


def main():
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore", message="You are using a softmax over axis")  # a single key is meant
    generator, pick = numpy.random.default_rng(2026), random.Random(2026)
    writer = CaseWriter(sys.argv[1])
    for index in range(40):
        keras_case(writer, pick, generator, index)
    for index in range(14):  # JAX compiles each operation for each shape
        flax_case(writer, pick, generator, index)
    writer.finish()
    print("keras", keras.__version__, "flax", flax.__version__, "jax", jax.__version__)


if __name__ == "__main__":
    main()
