# SPDX-License-Identifier: Apache-2.0
"""A peer as a process that answers compare.py, with the words of main.cpp: peers.py NAME THREADS.

Each peer gets what suits it, before anything is timed: operands in its own layout and type, outputs it may keep where it
has such a thing, constant weights to pack, masks in the form that it has for them. What it cannot do it says.
"""

import os
import pathlib
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import problems  # noqa: E402
from calls import Cannot, encoder_model, faster, folded, keeping, sibling  # noqa: E402
from openvino_peer import OpenVino  # noqa: E402


class Torch:
    """prepare(): (call, result): a call that computes once, and what gives the last results as flat NumPy arrays."""

    def __init__(self, threads):
        import torch
        torch.set_num_threads(threads)
        self.torch, self.threads = torch, threads

    def prepare(self, problem, arrays):
        torch = self.torch
        if problem.type == "int8":
            raise Cannot("no attention over keys in int8")
        if problem.caller:
            raise Cannot(f"its packages from PyPI are called from Python, not {problem.caller}")
        torch.set_grad_enabled(problem.kind == "backward")
        kind = getattr(torch, problem.type)
        if problem.kind == "encoder":
            model = sibling("encoder").Torch(encoder_model().to(kind), self.threads)
            return keeping(lambda: model.output(arrays["ids"]))
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        given = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
        visible = problem.visible(arrays) if problem.kind in ("forward", "backward") else None
        if visible is not None:
            given["mask"] = torch.from_numpy(visible)
        call = {"forward": self.attention, "product": self.product, "sample": self.sample, "layer": self.layer,
                "backward": self.backward, "decode": self.decode}[problem.kind](problem, given)
        return keeping(call)

    def attention(self, problem, given):
        mask = given.get("mask", given.get("bias"))
        options = {"is_causal": problem.causal} if mask is None else {"attn_mask": mask}
        if problem.kv_heads:
            options["enable_gqa"] = True
        function, q, k, v = self.torch.nn.functional.scaled_dot_product_attention, given["q"], given["k"], given["v"]
        if problem.side_by_side:
            q, k, v = (rows.transpose(1, 2).contiguous().transpose(1, 2) for rows in (q, k, v))
        whole = lambda: function(q, k, v, **options)  # noqa: E731
        if problem.mask != "packed":
            return whole
        parts = [slice(*ends) for ends in zip(problem.bounds, problem.bounds[1:])]
        each = lambda: self.torch.cat([function(q[:, :, at], k[:, :, at], v[:, :, at]) for at in parts], 2)  # noqa: E731
        return faster([whole, each])

    def layer(self, problem, given):
        functional, shape = self.torch.nn.functional, (problem.batch, problem.length, problem.heads, problem.head_dim)
        inside = self.torch.cat([given[name] for name in ("Wq", "Wk", "Wv")], 1).T.contiguous()
        outside = given["Wo"].T.contiguous()

        def run():
            q, k, v = (part.view(shape).transpose(1, 2) for part in functional.linear(given["x"], inside).chunk(3, -1))
            heads = functional.scaled_dot_product_attention(q, k, v)
            return functional.linear(heads.transpose(1, 2).reshape(given["x"].shape), outside)
        return run

    def decode(self, problem, given):
        """Queries of a kv head as rows, which see all keys alike, or as heads: whichever is faster here."""
        function = self.torch.nn.functional.scaled_dot_product_attention
        q, k, v = (given[name] for name in ("q", "k", "v"))
        rows = folded(problem, q)
        ways = [lambda: function(rows, k, v), lambda: function(q, k, v, enable_gqa=True)]
        return faster(ways) if problem.heads > problem.kv_heads else ways[0]

    def backward(self, problem, given):
        """The backward pass alone, of a graph that is kept."""
        inputs = [given[name].requires_grad_() for name in ("q", "k", "v")]
        out = self.attention(problem, given)()
        return lambda: self.torch.autograd.grad(out, inputs, given["d_out"], retain_graph=True)

    def product(self, problem, given):
        functional, weight = self.torch.nn.functional, given["weight"].T.contiguous()
        return lambda: functional.gelu(functional.linear(given["x"], weight, given["bias"]))

    def sample(self, problem, given):
        function = self.torch.nn.functional.scaled_dot_product_attention

        def run():
            q, k, v = ((given["X"] @ given[name]).view(2, 2, 3).transpose(0, 1) for name in ("Wq", "Wk", "Wv"))
            return function(q, k, v).transpose(0, 1).reshape(2, 6) @ given["Wo"]
        return run


class OnnxRuntime:
    def __init__(self, threads):
        import onnxruntime
        self.runtime = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads, self.options.inter_op_num_threads = threads, 1

    def prepare(self, problem, arrays):
        if problem.kind == "decode":
            return self.decode(problem, arrays)
        ways = {"forward": self.grouped if problem.kv_heads else self.attention, "product": self.product, "layer": self.layer}
        if problem.type != "float32" or problem.kind not in ways:
            raise Cannot(f"no {problem.kind} in {problem.type} on a processor")
        model, inputs, shape, turn = ways[problem.kind](problem, arrays)
        session = self.runtime.InferenceSession(model.SerializeToString(), self.options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        values = {name: self.runtime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        out = self.runtime.OrtValue.ortvalue_from_shape_and_type(shape, "float32")
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("y", out)
        self.kept = inputs, values  # bound by address
        return (lambda: session.run_with_iobinding(binding)), (lambda: [turn(out.numpy())])

    def attention(self, problem, arrays):
        """Its MultiHeadAttention takes (batch, tokens, heads x head_dim), and lengths or a bias for masks."""
        import numpy
        inputs = {name: numpy.ascontiguousarray(arrays[name].transpose(0, 2, 1, 3)) for name in ("q", "k", "v")}
        inputs = {name: rows.reshape(problem.batch, rows.shape[1], -1) for name, rows in inputs.items()}
        shape = inputs["q"].shape
        names, visible = ["q", "k", "v"], problem.visible(arrays)
        if problem.mask == "padded":
            names += ["", "mask"]
            inputs["mask"] = numpy.array(problem.lengths, numpy.int32)
        elif visible is not None or problem.mask:
            names += ["", "", "bias"]
            hides = arrays["bias"][None, None] if visible is None else numpy.where(visible, 0, -numpy.inf)
            inputs["bias"] = hides.astype(numpy.float32)
        node = dict(num_heads=problem.heads, unidirectional=int(problem.causal and visible is None), domain="com.microsoft")
        model = self.graph([("MultiHeadAttention", names, "y", node)], inputs, {})
        return model, inputs, shape, self.heads_first(problem)

    @staticmethod
    def heads_first(problem):
        import numpy
        split = (problem.batch, -1, problem.heads, problem.head_dim)
        return lambda y: numpy.ascontiguousarray(y.reshape(split).transpose(0, 2, 1, 3))

    def grouped(self, problem, arrays):
        """Its GroupQueryAttention is causal; the whole prompt at once, with nothing in its cache."""
        import numpy
        if not problem.causal or problem.mask or problem.window:
            raise Cannot("no grouped heads but causal ones")
        inputs = {name: numpy.ascontiguousarray(arrays[name].transpose(0, 2, 1, 3)).reshape(1, problem.length, -1)
                  for name in ("q", "k", "v")}
        empty = numpy.zeros((1, problem.kv_heads, 0, problem.head_dim), numpy.float32)
        inputs.update(past_k=empty, past_v=empty, last=numpy.array([problem.length - 1], numpy.int32),
                      total=numpy.array([problem.length], numpy.int32))
        node = dict(num_heads=problem.heads, kv_num_heads=problem.kv_heads, domain="com.microsoft")
        outputs = dict.fromkeys(["y", "all_k", "all_v"], empty.dtype)
        model = self.graph([("GroupQueryAttention", list(inputs), "y", node)], inputs, {}, outputs)
        return model, inputs, inputs["q"].shape, self.heads_first(problem)

    def layer(self, problem, arrays):
        node = dict(num_heads=problem.heads, domain="com.microsoft")
        nodes = [*(("MatMul", ["x", f"W{name}"], name, {}) for name in "qkv"),
                 ("MultiHeadAttention", ["q", "k", "v"], "heads", node), ("MatMul", ["heads", "Wo"], "y", {})]
        inputs, weights = {"x": arrays["x"]}, {name: arrays[name] for name in ("Wq", "Wk", "Wv", "Wo")}
        return self.graph(nodes, inputs, weights), inputs, arrays["x"].shape, lambda y: y

    def decode(self, problem, arrays):
        """Its GroupQueryAttention writes the token's own key and value into the cache, in place, and reads it all."""
        import numpy
        if problem.type == "bfloat16":
            raise Cannot("no cache in bfloat16 on a processor")
        kind = numpy.dtype("float32" if problem.type == "int8" else problem.type)
        values = {name: arrays[name].astype(kind) for name in ("q", "k", "v")}
        inputs = {name: numpy.ascontiguousarray(values[name][:, :, -1]).reshape(1, 1, -1) for name in values}
        inputs.update(past_k=values["k"], past_v=values["v"], last=numpy.array([problem.length - 1], numpy.int32),
                      total=numpy.array([problem.length], numpy.int32))
        node = dict(num_heads=problem.heads, kv_num_heads=problem.kv_heads, domain="com.microsoft")
        names = ["q", "k", "v", "past_k", "past_v", "last", "total"]
        if problem.type == "int8":  # a scale for each channel of a head
            node.update(k_quant_type="PER_CHANNEL", v_quant_type="PER_CHANNEL", kv_cache_bit_width=8)
            names += [""] * 5 + ["k_scale", "v_scale"]
            for name in ("k", "v"):
                scale = abs(values[name]).max((0, 2)) / 127
                inputs[f"past_{name}"] = numpy.rint(values[name] / scale[None, :, None]).astype(numpy.int8)
                inputs[f"{name}_scale"] = scale
        cached = inputs["past_k"].dtype
        model = self.graph([("GroupQueryAttention", names, "y", node)], inputs, {}, {"y": kind, "all_k": cached, "all_v": cached})
        session = self.runtime.InferenceSession(model.SerializeToString(), self.options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        placed = {name: self.runtime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        placed["y"] = self.runtime.OrtValue.ortvalue_from_shape_and_type(inputs["q"].shape, kind)
        placed["all_k"], placed["all_v"] = placed["past_k"], placed["past_v"]
        for name in filter(None, names):
            binding.bind_ortvalue_input(name, placed[name])
        for name in ("y", "all_k", "all_v"):
            binding.bind_ortvalue_output(name, placed[name])
        self.kept = inputs, placed  # bound by address
        return (lambda: session.run_with_iobinding(binding)), (lambda: [placed["y"].numpy()])

    def product(self, problem, arrays):
        constants = {name: arrays[name] for name in ("weight", "bias")}
        nodes = [("MatMul", ["x", "weight"], "sum", {}), ("BiasGelu", ["sum", "bias"], "y", {"domain": "com.microsoft"})]
        inputs = {"x": arrays["x"]}
        return self.graph(nodes, inputs, constants), inputs, (problem.rows, problem.columns), lambda y: y

    @staticmethod
    def graph(nodes, inputs, constants, outputs=None):
        """outputs: name to type, of the last node; y in the first input's unless given."""
        import onnx
        helper = onnx.helper
        outputs = outputs or {"y": next(iter(inputs.values())).dtype}
        value = lambda name, kind, shape: helper.make_tensor_value_info(  # noqa: E731
            name, helper.np_dtype_to_tensor_dtype(kind), shape)
        graph = helper.make_graph(
            [helper.make_node(kind, names, list(outputs) if out == "y" else [out], **more) for kind, names, out, more in nodes],
            "problem", [value(name, array.dtype, array.shape) for name, array in inputs.items()],
            [value(name, kind, None) for name, kind in outputs.items()],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class NumPy:
    """The chapter's function as one writes it."""

    def __init__(self, threads):
        os.environ["OPENBLAS_NUM_THREADS"] = str(threads)  # before NumPy is imported

    def prepare(self, problem, arrays):
        import numpy
        if problem.kind != "sample" or problem.caller:
            raise Cannot("nothing but the sample, from Python")

        def run():
            q, k, v = ((arrays["X"] @ arrays[name]).reshape(2, 2, 3).transpose(1, 0, 2) for name in ("Wq", "Wk", "Wv"))
            scores = q @ k.transpose(0, 2, 1) / numpy.sqrt(3.0)
            weights = numpy.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            return (weights @ v).transpose(1, 0, 2).reshape(2, 6) @ arrays["Wo"]
        return keeping(run)


class Multihead:
    """Ours from Python, for what takes no longer than such a call; the rest is main.cpp's."""

    def __init__(self, threads):
        import multihead
        self.multihead, self.threads = multihead, threads

    def prepare(self, problem, arrays):
        import numpy
        if problem.kind != "sample" or problem.caller:
            raise Cannot("nothing but the sample, from Python")
        operands, out = [arrays[name] for name in ("X", "Wq", "Wk", "Wv", "Wo")], numpy.empty((2, 3))
        return (lambda: self.multihead.multi_head_attention(*operands, 2, out=out)), (lambda: [out])


PEERS = {"PyTorch": Torch, "ONNX-Runtime": OnnxRuntime, "OpenVINO": OpenVino, "NumPy": NumPy, "multihead": Multihead}


def prepared(peer, words):
    """(call, "ready") or (None, why not); the results lie in the folder."""
    import numpy
    folder, problem = pathlib.Path(words[0]), problems.named(words[2])
    try:
        call, result = peer.prepare(problem, {path.stem: numpy.load(path) for path in folder.glob("*.npy")})
    except Cannot as lack:
        return None, f"cannot {lack}"
    getattr(call, "renew", lambda: None)()
    call()
    flat = numpy.concatenate([numpy.asarray(value).astype(numpy.float64).reshape(-1) for value in result()])
    numpy.save(folder / f"{words[1]}.npy", flat)
    return call, "ready"


def seconds_of(call, repeats, clock):
    """Of one; a call that changes what it reads says how often it may be made, and how all is as it was."""
    renew, every, seconds, left = getattr(call, "renew", None), getattr(call, "every", repeats), 0.0, repeats
    while left > 0:
        if renew:
            renew()
        start = clock()
        for _ in range(min(every, left)):
            call()
        seconds, left = seconds + clock() - start, left - every
    return seconds / repeats


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    answers = os.fdopen(os.dup(1), "w")  # what a peer prints is no answer
    os.dup2(2, 1)
    warnings.simplefilter("ignore")  # of tracing a model
    clock = time.process_time if threads == 1 else time.perf_counter
    peer, call = PEERS[name](threads), None
    for line in sys.stdin:
        verb, *words = line.split()
        if verb == "run":
            answer = seconds_of(call, int(words[0]), clock)
        else:
            call, answer = prepared(peer, words)
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
