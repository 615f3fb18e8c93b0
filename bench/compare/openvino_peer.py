# SPDX-License-Identifier: Apache-2.0
"""OpenVINO as a peer of peers.py."""

from calls import Cannot, encoder_model, keeping, sibling


class OpenVino:
    def __init__(self, threads):
        import openvino
        self.openvino, self.threads, self.core = openvino, threads, openvino.Core()
        self.capabilities = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def prepare(self, problem, arrays):
        types = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}
        if problem.kind == "decode":
            return self.decode(problem, arrays)
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
        ways = {"forward": self.attention, "product": self.product, "layer": self.layer}
        if problem.kind not in ways:
            raise Cannot(f"no {problem.kind}")
        model, inputs = ways[problem.kind](problem, arrays, short)
        settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        request = self.core.compile_model(model, "CPU", settings).create_infer_request()
        self.kept = inputs, [self.tensor(array, short) for array in inputs]  # bound by address
        for index, tensor in enumerate(self.kept[1]):
            request.set_input_tensor(index, tensor)

        def result():
            out = self.floats(request.get_output_tensor(0))
            return [out.transpose(0, 2, 1, 3) if problem.side_by_side else out]
        return (lambda: request.infer(share_outputs=True)), result

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
        import numpy
        ops = self.openvino.opset13
        inputs = [arrays[name] for name in ("q", "k", "v")]
        if problem.side_by_side:
            inputs = [numpy.ascontiguousarray(array.transpose(0, 2, 1, 3)) for array in inputs]
        visible = problem.visible(arrays)
        mask = arrays["bias"][None, None] if problem.mask == "bias" else visible
        if mask is not None:
            inputs.append(mask)
        types = [self.openvino.Type.boolean if array is visible else getattr(self.openvino.Type, short) for array in inputs]
        places = [ops.parameter(array.shape, kind) for array, kind in zip(inputs, types)]
        more = {"causal": problem.causal} if mask is None else {"attention_mask": places[3], "causal": False}
        turned = lambda place: ops.transpose(place, ops.constant(numpy.array([0, 2, 1, 3])))  # noqa: E731
        read = [turned(place) for place in places[:3]] if problem.side_by_side else places[:3]
        if problem.kv_heads:
            read[1:] = (self.repeated(problem, place) for place in read[1:])
        result = ops.scaled_dot_product_attention(*read, **more)
        return self.openvino.Model([turned(result) if problem.side_by_side else result], places), inputs

    def repeated(self, problem, rows):
        """Each kv head as often as queries read it."""
        import numpy
        ops, heads, width = self.openvino.opset13, problem.heads, problem.head_dim
        ones = ops.constant(numpy.ones((1, 1, heads // problem.kv_heads, 1, 1), numpy.float32))
        wide = ops.multiply(ops.unsqueeze(rows, ops.constant(2, self.openvino.Type.i64)), ones)
        return ops.reshape(wide, ops.constant(numpy.array([0, heads, -1, width])), True)

    def layer(self, problem, arrays, short):
        import numpy
        ops, kind = self.openvino.opset13, getattr(self.openvino.Type, short)
        x = ops.parameter(arrays["x"].shape, kind)
        joined = lambda *names: numpy.concatenate([arrays[name] for name in names], 1)  # noqa: E731
        constant = lambda *names: ops.convert(ops.constant(joined(*names)), kind)  # noqa: E731
        order = lambda place, *axes: ops.transpose(place, ops.constant(numpy.array(axes)))  # noqa: E731
        fused = ops.matmul(x, constant("Wq", "Wk", "Wv"), False, False)
        split = (problem.batch, problem.length, 3, problem.heads, problem.head_dim)
        parts = ops.split(order(ops.reshape(fused, ops.constant(numpy.array(split)), False), 2, 0, 3, 1, 4), ops.constant(0), 3)
        q, k, v = (ops.squeeze(part, ops.constant(0)) for part in parts.outputs())
        heads = order(ops.scaled_dot_product_attention(q, k, v, causal=False), 0, 2, 1, 3)
        together = ops.reshape(heads, ops.constant(numpy.array(arrays["x"].shape)), False)
        return self.openvino.Model([ops.matmul(together, constant("Wo"), False, False)], [x]), [arrays["x"]]

    def decode(self, problem, arrays):
        """Its cache is the state of a model, of a precision of its own, to which each call appends a token: it is set anew
        before it has grown by more than a few in a hundred, which is not timed."""
        import numpy
        precisions = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "u8"}
        settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
                    "KV_CACHE_PRECISION": precisions[problem.type]}
        request = self.core.compile_model(self.cached_model(problem), "CPU", settings).create_infer_request()
        inputs = [arrays["q"], *(numpy.ascontiguousarray(arrays[name][:, :, -1:]) for name in ("k", "v")),
                  numpy.zeros(1, numpy.int32)]
        before = {name: numpy.ascontiguousarray(arrays[name][:, :, :-1]) for name in ("k", "v")}
        self.kept = inputs, before, [self.openvino.Tensor(array, shared_memory=True) for array in inputs]
        for index, tensor in enumerate(self.kept[2]):
            request.set_input_tensor(index, tensor)

        def call():
            request.infer(share_outputs=True)

        def renew():
            for state in request.query_state():
                state.state = self.openvino.Tensor(before[state.name])
        call.renew, call.every = renew, max(16, problem.length // 32)
        return call, lambda: [self.floats(request.get_output_tensor(0))]

    def cached_model(self, problem):
        """In the form that its plug-in takes for one operation."""
        import numpy
        ops, kind = self.openvino.opset13, self.openvino.Type
        heads, kv_heads, width = problem.heads, problem.kv_heads, problem.head_dim
        q = ops.parameter([1, heads, -1, width], kind.f32)
        new = {name: ops.parameter([1, kv_heads, -1, width], kind.f32) for name in ("k", "v")}
        beams, kept, read = ops.parameter([-1], kind.i32), [], []
        for name, rows in new.items():
            empty = ops.constant(numpy.zeros((1, kv_heads, 0, width), numpy.float32))
            past = ops.read_value(empty, name, kind.f32, self.openvino.PartialShape([-1, kv_heads, -1, width]))
            grown = ops.concat([ops.gather(past, beams, ops.constant(0, kind.i64)), rows], 2)
            kept.append(ops.assign(grown, name))
            if heads > kv_heads:
                grown = self.repeated(problem, grown)
            read.append(grown)
        result = ops.result(ops.scaled_dot_product_attention(q, *read, causal=False))
        return self.openvino.Model([result], kept, [q, *new.values(), beams])

    def product(self, problem, arrays, short):
        ops, kind = self.openvino.opset13, getattr(self.openvino.Type, short)
        x = ops.parameter(arrays["x"].shape, kind)
        weight, bias = (ops.convert(ops.constant(arrays[name]), kind) for name in ("weight", "bias"))
        result = ops.gelu(ops.add(ops.matmul(x, weight, False, False), bias), "erf")
        return self.openvino.Model([result], [x]), [arrays["x"]]
