// SPDX-License-Identifier: Apache-2.0
// C = activation(A B + bias) where A, B and C are stored in two bytes: blocks of A and of the packed B are widened, the
// product of floats runs over them, and C is rounded once, after the activation. Its bits before that are those of the
// product of the widened matrices.

inline void narrow_matmul_task(const NarrowMatmulTask& task) noexcept {
  MatmulTask<float> block{};
  block.rows = task.rows, block.columns = task.columns;
  float* const a = task.scratch;
  float* const panel = a + kNarrowRows * kInnerBlock;
  block.a = a, block.packed = panel;
  block.c = panel + kMatmulScratch, block.c_stride = kRowBlock;
  block.bias = task.bias, block.activation = task.activation;
  const std::int64_t size = static_cast<std::int64_t>(size_of(task.type));
  std::int64_t inner = 0;
  do {  // once for inner == 0: C becomes zero
    block.inner = block.a_stride = std::min<std::int64_t>(task.inner - inner, kInnerBlock);
    for (std::int64_t row = 0; row < task.rows; ++row)
      load_row<float>(element(task.a, task.type, row * task.a_stride + inner), task.type, 1, block.inner,
                      a + row * block.inner);
    load_row<float>(element(task.packed, task.type, inner * kRowBlock), task.type, 1, block.inner * kRowBlock, panel);
    matmul_blocks<float, false>(block);
    block.add = true;
    inner += kInnerBlock;
  } while (inner < task.inner);
  finish_product(block);
  for (std::int64_t row = 0; row < task.rows; ++row) {
    char* const to = static_cast<char*>(task.c) + row * task.c_stride * size;
    if (task.type == Type::bfloat16)
      narrow<BFloat16>(block.c + row * kRowBlock, task.columns, to);
    else
      narrow<Float16>(block.c + row * kRowBlock, task.columns, to);
  }
}
