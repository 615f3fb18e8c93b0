# SPDX-License-Identifier: Apache-2.0
"""A peer as a process that answers compare.py, with the words of main.cpp: peers.py NAME THREADS.

Each peer gets what suits it, before anything is timed: operands in its own layout and type, outputs it may keep where it
has such a thing, constant weights to pack, masks in the form that it has for them. What it cannot do it says.
"""

import importlib.util
import os
import pathlib
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import environment  # noqa: E402
import problems  # noqa: E402


class Cannot(Exception):
    """What a peer lacks for a problem."""


def sibling(name):
    """bench/NAME/compare.py as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_compare", environment.SOURCE / "bench" / name / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoder_model():
    import transformers
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = environment.CACHE / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        raise Cannot("the model is not in the cache: .ci/fetch-model brings it")
    return transformers.AutoModel.from_pretrained(folder).eval().float()


class Torch:
    """prepare(): (call, result): a call that computes once, and what gives the last results as flat NumPy arrays."""

    def __init__(self, threads):
        import torch
        torch.set_num_threads(threads)
        self.torch, self.threads = torch, threads

    def prepare(self, problem, arrays):
        torch = self.torch
        torch.set_grad_enabled(problem.kind == "backward")
        kind = getattr(torch, problem.type)
        if problem.kind == "encoder":
            model = sibling("encoder").Torch(encoder_model().to(kind), self.threads)
            return keeping(lambda: model.output(arrays["ids"]))
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        given = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
        call = {"forward": self.attention, "product": self.product, "sample": self.sample,
                "backward": self.backward}[problem.kind](problem, given)
        return keeping(call)

    def attention(self, problem, given):
        masked = problem.padded or problem.window
        options = {"attn_mask": self.torch.from_numpy(problem.mask())} if masked else {"is_causal": problem.causal}
        function = self.torch.nn.functional.scaled_dot_product_attention
        return lambda: function(given["q"], given["k"], given["v"], **options)

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
        if problem.type != "float32" or problem.kind not in ("forward", "product"):
            raise Cannot(f"no {problem.kind} in {problem.type} on a processor")
        model, inputs, shape, turn = (self.attention if problem.kind == "forward" else self.product)(problem, arrays)
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
        shape = (problem.batch, problem.length, problem.heads * problem.head_dim)
        inputs = {name: numpy.ascontiguousarray(arrays[name].transpose(0, 2, 1, 3)).reshape(shape) for name in ("q", "k", "v")}
        names = ["q", "k", "v"]
        if problem.padded:
            names += ["", "mask"]
            inputs["mask"] = numpy.array(problem.lengths, numpy.int32)
        elif problem.window:
            names += ["", "", "bias"]
            inputs["bias"] = numpy.where(problem.mask(), 0, -numpy.inf).astype(numpy.float32)
        node = dict(num_heads=problem.heads, unidirectional=int(problem.causal and not problem.window), domain="com.microsoft")
        model = self.graph([("MultiHeadAttention", names, "y", node)], inputs, {})
        split = (problem.batch, problem.length, problem.heads, problem.head_dim)
        return model, inputs, shape, lambda y: numpy.ascontiguousarray(y.reshape(split).transpose(0, 2, 1, 3))

    def product(self, problem, arrays):
        constants = {name: arrays[name] for name in ("weight", "bias")}
        nodes = [("MatMul", ["x", "weight"], "sum", {}), ("BiasGelu", ["sum", "bias"], "y", {"domain": "com.microsoft"})]
        inputs = {"x": arrays["x"]}
        return self.graph(nodes, inputs, constants), inputs, (problem.rows, problem.columns), lambda y: y

    @staticmethod
    def graph(nodes, inputs, constants):
        import onnx
        helper = onnx.helper
        value = lambda name, array: helper.make_tensor_value_info(  # noqa: E731
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        graph = helper.make_graph(
            [helper.make_node(kind, names, [out], **more) for kind, names, out, more in nodes], "problem",
            [value(name, array) for name, array in inputs.items()],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class OpenVino:
    def __init__(self, threads):
        import openvino
        self.openvino, self.threads, self.core = openvino, threads, openvino.Core()
        self.capabilities = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def prepare(self, problem, arrays):
        types = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}
        if problem.type not in types:
            raise Cannot(f"no {problem.type}")
        short, capability = types[problem.type]
        # Where the processor does not compute in it, a type is how tensors are stored, as it is for ours.
        precision = short if capability in self.capabilities else "f32"
        if problem.kind == "encoder":
            if precision != short:
                raise Cannot(f"no {problem.type} on this processor")
            model = sibling("encoder").OpenVino(encoder_model(), self.threads, short)
            return keeping(lambda: model.output(arrays["ids"]))
        if problem.kind not in ("forward", "product"):
            raise Cannot(f"no {problem.kind}")
        model, inputs = (self.attention if problem.kind == "forward" else self.product)(problem, arrays, short)
        settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        request = self.core.compile_model(model, "CPU", settings).create_infer_request()
        self.kept = inputs, [self.tensor(array, short) for array in inputs]  # bound by address
        for index, tensor in enumerate(self.kept[1]):
            request.set_input_tensor(index, tensor)
        return (lambda: request.infer(share_outputs=True)), (lambda: [self.floats(request.get_output_tensor(0))])

    def tensor(self, array, short):
        """The array in the row's own type."""
        import numpy
        if array.dtype != numpy.float32 or short == "f32":
            return self.openvino.Tensor(array, shared_memory=True)
        tensor = self.openvino.Tensor(getattr(self.openvino.Type, short), self.openvino.Shape(array.shape))
        words = array.astype(numpy.float16) if short == "f16" else (array.view(numpy.uint32) >> 16).astype(numpy.uint16)
        tensor.data.view(numpy.uint16)[:] = words.view(numpy.uint16)
        return tensor

    def floats(self, tensor):
        import numpy
        if str(tensor.element_type) == str(self.openvino.Type.bf16):
            return (tensor.data.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
        return tensor.data.astype(numpy.float32)

    def attention(self, problem, arrays, short):
        ops = self.openvino.opset13
        inputs = [arrays[name] for name in ("q", "k", "v")]
        places = [ops.parameter(array.shape, getattr(self.openvino.Type, short)) for array in inputs]
        more = {"causal": problem.causal}
        if problem.padded or problem.window:
            inputs.append(problem.mask())
            places.append(ops.parameter(inputs[-1].shape, self.openvino.Type.boolean))
            more = {"attention_mask": places[-1], "causal": False}
        result = ops.scaled_dot_product_attention(*places[:3], **more)
        return self.openvino.Model([result], places), inputs

    def product(self, problem, arrays, short):
        ops, kind = self.openvino.opset13, getattr(self.openvino.Type, short)
        x = ops.parameter(arrays["x"].shape, kind)
        weight, bias = (ops.convert(ops.constant(arrays[name]), kind) for name in ("weight", "bias"))
        result = ops.gelu(ops.add(ops.matmul(x, weight, False, False), bias), "erf")
        return self.openvino.Model([result], [x]), [arrays["x"]]


class NumPy:
    """The chapter's function as one writes it."""

    def __init__(self, threads):
        os.environ["OPENBLAS_NUM_THREADS"] = str(threads)  # before NumPy is imported

    def prepare(self, problem, arrays):
        import numpy
        if problem.kind != "sample":
            raise Cannot("nothing but the sample")

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
        if problem.kind != "sample":
            raise Cannot("nothing but the sample")
        operands, out = [arrays[name] for name in ("X", "Wq", "Wk", "Wv", "Wo")], numpy.empty((2, 3))
        return (lambda: self.multihead.multi_head_attention(*operands, 2, out=out)), (lambda: [out])


def keeping(run):
    """(call, result) of what returns its results."""
    kept = [None]

    def call():
        kept[0] = run()

    def result():
        import numpy
        values = kept[0] if isinstance(kept[0], (tuple, list)) else [kept[0]]
        return [value if isinstance(value, numpy.ndarray) else value.detach().double().numpy() for value in values]
    return call, result


PEERS = {"PyTorch": Torch, "ONNX-Runtime": OnnxRuntime, "OpenVINO": OpenVino, "NumPy": NumPy, "multihead": Multihead}


def prepared(peer, words):
    """(call, "ready") or (None, why not); the results lie in the folder."""
    import numpy
    folder, problem = pathlib.Path(words[0]), problems.problem_of(words[1:])
    try:
        call, result = peer.prepare(problem, {path.stem: numpy.load(path) for path in folder.glob("*.npy")})
    except Cannot as lack:
        return None, f"cannot {lack}"
    call()
    flat = numpy.concatenate([numpy.asarray(value).astype(numpy.float64).reshape(-1) for value in result()])
    numpy.save(folder / f"{words[1]}.npy", flat)
    return call, "ready"


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
            start = clock()
            for _ in range(int(words[0])):
                call()
            answer = (clock() - start) / int(words[0])
        else:
            call, answer = prepared(peer, words)
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
