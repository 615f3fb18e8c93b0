// SPDX-License-Identifier: Apache-2.0
// Multi-head attention from C: two tokens of width 3, two heads, in memory that is ours.
#include <stdio.h>
#include <stdlib.h>

#include "multihead/multihead.h"

static void check(mh_status status) {
  if (status == MH_OK) return;
  fprintf(stderr, "%s: %s\n", mh_status_string(status), mh_last_error_message());
  exit(EXIT_FAILURE);
}

static mh_tensor matrix(double* data, int64_t rows, int64_t columns) {
  const int64_t shape[2] = {rows, columns};
  mh_tensor tensor;
  check(mh_tensor_init(&tensor, data, MH_FLOAT64, 2, shape));
  return tensor;
}

int main(void) {
  double x[2][3] = {{1, 0, 1}, {0, 1, 1}};  // one row a token
  // (model_dim, heads * head_dim) = (3, 6): head 0 has columns 0 to 2, head 1 columns 3 to 5.
  double wq[3][6] = {
      {1.2, 0.3, -0.5, 0.4, 1.1, 0.2}, {-0.4, 1.5, 0.6, 1.3, -0.2, 0.5}, {0.6, -0.1, 0.8, -0.3, 0.2, -0.7}};
  double wk[3][6] = {
      {1.4, -0.6, 0.2, 1.0, -0.8, 0.3}, {-0.7, 1.1, 0.9, -0.5, 1.2, 0.1}, {0.3, 0.2, -0.4, 0.2, 0.4, -0.6}};
  double wv[3][6] = {
      {0.5, -0.2, 1.0, 0.3, 0.8, -0.4}, {-0.3, 0.9, 0.1, -0.6, 0.2, 0.7}, {0.2, 0.4, -0.5, 0.9, -0.1, 0.6}};
  double wo[6][3] = {{0.7, -0.2, 0.1}, {0.3, 0.5, -0.4}, {-0.1, 0.8, 0.2},
                     {0.4, -0.3, 0.9}, {-0.6, 0.1, 0.5}, {0.2, 0.6, -0.7}};
  double y[2][3];
  const mh_tensor X = matrix(&x[0][0], 2, 3), Wq = matrix(&wq[0][0], 3, 6), Wk = matrix(&wk[0][0], 3, 6);
  const mh_tensor Wv = matrix(&wv[0][0], 3, 6), Wo = matrix(&wo[0][0], 6, 3), output = matrix(&y[0][0], 2, 3);

  mh_run_options run;
  mh_run_options_init(&run, sizeof run);
  size_t bytes;
  check(mh_multi_head_attention_scratch_bytes(&X, &Wq, &Wk, &Wv, &Wo, 2, &run, 0, &bytes));
  run.scratch = malloc(bytes);
  run.scratch_bytes = run.scratch ? bytes : 0;
  check(mh_multi_head_attention(&X, &Wq, &Wk, &Wv, &Wo, 2, &output, NULL, NULL, &run));
  free(run.scratch);

  puts("Output:");
  for (int i = 0; i < 2; ++i) printf("%9.4f%9.4f%9.4f\n", y[i][0], y[i][1], y[i][2]);
  return 0;
}
