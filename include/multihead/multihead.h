// SPDX-License-Identifier: Apache-2.0
// The C face of multihead: attention, the layer, encoders, what would run and why. C99 and C++; library multihead_c.
//
// Every function that can fail returns a status; then nothing was written (but the count of mh_encoder_tokens), and
// mh_last_error_message() has a sentence with argument, value and rule. Nothing aborts, exits, prints or throws. What
// the operations mean, and what holds for bits, masks, special values, threads and allocation, is said once, in the C++
// headers beside this one (attention.hpp, attention_backward.hpp, kv_cache.hpp, masks.hpp, layer.hpp,
// multi_head_attention.hpp, encoder.hpp), whose names these are with the prefix mh_.
//
// Structs begin with struct_size. Their init functions, called as mh_x_init(&x, sizeof x), set it and every default.
// Fields are only ever added at the end: a newer library takes what an older caller lacks as its default, and a newer
// caller's fields are refused by an older library unless they are 0. A pointer to options that is NULL means the
// defaults; a pointer to a tensor that is NULL, or whose rank is 0, that nothing is given or asked for. Every buffer is
// the caller's and need only live through the call.
// Handles are immutable, but for mh_kv_cache: any number of threads may use one at a time, all but destroy.
#ifndef MULTIHEAD_H
#define MULTIHEAD_H

#include <stddef.h>
#include <stdint.h>

#define MH_VERSION_MAJOR 0
#define MH_VERSION_MINOR 1
#define MH_VERSION_PATCH 0

#if defined(_WIN32)
#if defined(MH_BUILDING)
#define MH_API __declspec(dllexport)
#else
#define MH_API
#endif
#else
#define MH_API __attribute__((visibility("default")))
#endif

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define MH_DATA_IS_KEPT __attribute__((access(none, 2)))  // not read: memory of an output need hold nothing yet
#else
#define MH_DATA_IS_KEPT
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---- Status

typedef int32_t mh_status;
enum {
  MH_OK = 0,
  MH_SHAPE_MISMATCH = 1,  // extents, strides or sizes do not fit together
  MH_BAD_OPTION = 2,      // an option is out of range or contradicts another
  MH_UNSUPPORTED = 3,     // a combination that is not built, or a target this machine lacks
  MH_FILE_MISSING = 4,    // a file cannot be opened, read or written
  MH_FILE_MALFORMED = 5,  // a file breaks a rule of its format
  MH_OUT_OF_MEMORY = 6,   // scratch given is too small, or an allocation failed
  MH_BAD_TYPE = 7,        // a tensor's element type is not the one that is wanted there
  MH_BAD_ARGUMENT = 8,    // NULL where something is needed, a rank, an enumeration's or a struct_size's value
  MH_INTERNAL_ERROR = 9,  // a fault of the library
  MH_NON_FINITE = 10      // a training met NaN or infinity
};

// "shape_mismatch"; "unknown" for a number that is no status. Never NULL.
MH_API const char* mh_status_string(mh_status status);

// The sentence of this thread's last call that failed, valid until this thread's next call; "" before the first.
MH_API const char* mh_last_error_message(void);

// "0.1.0", of the library that is linked.
MH_API const char* mh_version(void);

// ---- Tensors

typedef int32_t mh_type;
enum {
  MH_FLOAT32 = 1,
  MH_FLOAT64 = 2,
  MH_BFLOAT16 = 3,
  MH_FLOAT16 = 4,
  MH_INT64 = 5,
  MH_BOOL = 6,  // one byte, 0 or not
  MH_UINT32 = 7,
  MH_INT32 = 8
};

// Elements someone else owns. Strides count elements and may be 0 or negative where the operation allows it; data
// points to the element whose indices are all 0 and is only written through where the tensor is an output. This struct
// has no struct_size: it is fixed for good.
typedef struct mh_tensor {
  void* data;
  mh_type type;
  int32_t rank;  // 1 to 4; 0: not given
  int64_t shape[4];
  int64_t strides[4];
} mh_tensor;

// A contiguous tensor, last axis fastest. shape has rank elements, and is read only. data is const for the sake of
// inputs in memory that may not be written; an output's must be memory that may. MH_BAD_ARGUMENT: a rank or type that
// is none; MH_SHAPE_MISMATCH: a negative extent, or more bytes than 63 bits count.
MH_API MH_DATA_IS_KEPT mh_status mh_tensor_init(mh_tensor* tensor, const void* data, mh_type type, int32_t rank,
                                                const int64_t* shape);

// ---- The machine

typedef int32_t mh_target;
enum {
  MH_TARGET_CHOOSE = 0,
  MH_TARGET_BASELINE = 1,
  MH_TARGET_AVX2 = 2,
  MH_TARGET_AVX512 = 3,
  MH_TARGET_NEON = 4,
  MH_TARGET_AVX512BF16 = 5,
  MH_TARGET_AMX = 6
};

typedef struct mh_info {
  uint32_t struct_size;
  int32_t threads;          // of the machine that the process may use
  mh_target chosen;         // what a call runs that pins nothing
  int32_t available_count;  // of the targets below, best first
  mh_target available[8];
  char version[32];
  char processor[128];
  char compiler[128];  // that built the library
  int32_t models;      // 1: built with encoders; 0: the functions of mh_encoder are MH_UNSUPPORTED
} mh_info;

MH_API void mh_info_init(mh_info* info, size_t size);
// MH_BAD_OPTION or MH_UNSUPPORTED: the variable MULTIHEAD_TARGET names a target that is none or cannot run here.
MH_API mh_status mh_get_info(mh_info* info);

// "avx2"; "unknown" for a number that is no target. Never NULL.
MH_API const char* mh_target_name(mh_target target);
MH_API mh_status mh_target_from_name(const char* name, mh_target* target);
// Attention tasks that the kernels of a target have run in this process: the proof of which ones did.
MH_API mh_status mh_tasks_run(mh_target target, uint64_t* count);

// The caller's parallel loop: calls task(argument, index) once for each index in [0, count), on any threads, in any
// order, and returns when all have finished.
typedef void (*mh_task)(void* argument, int64_t index);
typedef void (*mh_parallel_for)(void* context, int64_t count, mh_task task, void* argument);

// How a call runs; no bit of a result depends on it but through target.
typedef struct mh_run_options {
  uint32_t struct_size;
  int32_t threads;               // 1 by init; at least 1
  mh_target target;              // pinned, or MH_TARGET_CHOOSE
  int32_t reserved;              // 0
  mh_parallel_for parallel_for;  // instead of the library's pool, or NULL
  void* parallel_context;
  void* scratch;  // what the call's scratch query says, any alignment; NULL: kept per thread and reused
  size_t scratch_bytes;
} mh_run_options;

MH_API void mh_run_options_init(mh_run_options* options, size_t size);

// ---- Attention

typedef int32_t mh_alignment;
enum {
  MH_ALIGN_UNNAMED = 0,
  MH_ALIGN_TOP_LEFT = 1,
  MH_ALIGN_BOTTOM_RIGHT = 2,
  MH_ALIGN_OFFSET = 3,  // query_offset
  MH_ALIGN_OFFSETS = 4  // query_offsets, one a sequence
};

// AttentionOptions of attention.hpp. Lists are tensors of rank 1, contiguous.
typedef struct mh_attention_options {
  uint32_t struct_size;
  int32_t causal;  // 0 or 1
  mh_alignment alignment;
  int32_t has_scale;  // 1: scale is given; 0: 1/sqrt(head_dim)
  double scale;
  double softcap;        // 0: none
  int64_t query_offset;  // with MH_ALIGN_OFFSET
  int64_t window_left;   // -1 by init: no bound; otherwise keys before the query's own position that are still seen
  int64_t window_right;  // likewise after it
  const mh_tensor* query_offsets;  // (sequences) int64, with MH_ALIGN_OFFSETS
  const mh_tensor* prefixes;       // (sequences) int64
  const mh_tensor* lengths;        // (batch) int64
  const mh_tensor* cu_seqlens_q;   // (sequences + 1) int64
  const mh_tensor* cu_seqlens_k;   // (sequences + 1) int64
  const mh_tensor* q_segments;     // (batch, q_len) int64, any strides
  const mh_tensor* kv_segments;    // (batch, kv_len) int64, any strides
  const mh_tensor* keep_mask;      // bool, rank 1 to 4, broadcast to (batch, heads, q_len, kv_len), any strides
  const mh_tensor* drop_mask;      // likewise
  const mh_tensor* bias;           // floating, likewise
  const mh_tensor* alibi_slopes;   // (heads) float64
  const mh_tensor* sinks;          // (heads) float64
  const mh_tensor* relative_bias;  // T5's table (buckets, heads), floating
  int32_t relative_bidirectional;  // 1 by init
  int32_t reserved;                // 0
  int64_t relative_max_distance;   // 128 by init
  const mh_run_options* run;       // NULL: one thread, chosen target, own scratch
  double dropout;                  // the probability that a weight is dropped; 0: none, and the next two mean nothing
  uint64_t dropout_seed;           // another one each step of a training
  uint32_t dropout_stream;         // tells apart calls that share a seed
  int32_t reserved_2;              // 0
  int64_t window_first;            // leading keys of a sequence that window_left hides from no row; 0: none
} mh_attention_options;

MH_API void mh_attention_options_init(mh_attention_options* options, size_t size);

typedef int32_t mh_weights_point;
enum { MH_WEIGHTS_NORMALISED = 0, MH_WEIGHTS_SCALED = 1, MH_WEIGHTS_CAPPED = 2, MH_WEIGHTS_BIASED = 3 };

// WeightsRequest of attention.hpp. Outputs are of the sums' type: float64 for float64, otherwise float32.
typedef struct mh_weights_request {
  uint32_t struct_size;
  mh_weights_point point;
  const mh_tensor* heads;          // (any) int64: query heads asked for; NULL: all
  const mh_tensor* rows;           // (any) int64: query rows asked for; NULL: all
  const mh_tensor* per_head;       // output (batch, heads asked, rows asked, kv_len)
  const mh_tensor* mean;           // output (batch, rows asked, kv_len)
  const mh_tensor* norm_weighted;  // output (batch, rows asked, kv_len)
  const mh_tensor* norms;          // (batch, heads, kv_len)
} mh_weights_request;

MH_API void mh_weights_request_init(mh_weights_request* request, size_t size);

// RowStatistics of statistics.hpp: outputs of the sums' type, but top_keys; NULL: not asked for.
typedef struct mh_row_statistics {
  uint32_t struct_size;
  int32_t reserved;                                             // 0
  const mh_tensor *visible, *entropy, *sum_squares, *distance;  // (batch, heads, q_len)
  const mh_tensor *offset_mass, *key_mass, *class_mass;         // (batch, heads, q_len, asked for)
  const mh_tensor *duplicate_mass, *induction_mass;             // (batch, heads, q_len)
  const mh_tensor *top_keys, *top_weights;                      // (batch, heads, q_len, 1 to 64), top_keys int64
  const mh_tensor* received;                                    // (batch, heads, kv_len)
  const mh_tensor* map;                                         // (batch, heads, bins of queries, bins of keys)
} mh_row_statistics;

MH_API void mh_row_statistics_init(mh_row_statistics* statistics, size_t size);

// StatisticsRequest of statistics.hpp. What no output reads (offsets without an offset_mass, and so on) must be as init
// sets it.
typedef struct mh_statistics_request {
  uint32_t struct_size;
  int32_t reserved;                // 0
  const mh_tensor* offsets;        // (any) int64, of offset_mass
  const mh_tensor* keys;           // (any) int64, of key_mass
  const mh_tensor* key_classes;    // (batch, kv_len) uint32, any strides, of class_mass: bit c set: of class c
  const mh_tensor* q_tokens;       // (batch, q_len) int64, any strides, of duplicate_mass and induction_mass
  const mh_tensor* kv_tokens;      // (batch, kv_len) likewise
  const mh_tensor* norms;          // (batch, heads, kv_len) of the sums' type, of norm_weighted; a layer wants none
  int64_t bin;                     // of map; 0 by init
  const mh_row_statistics* plain;  // of the weights, or NULL
  const mh_row_statistics* norm_weighted;  // of the weights times the norms, or NULL
} mh_statistics_request;

MH_API void mh_statistics_request_init(mh_statistics_request* request, size_t size);

// out = softmax(bias + cap(q k^T * scale), over visible keys) v, head by head; attention() of attention.hpp.
//   q (batch, heads, q_len, head_dim)   k (batch, kv_heads, kv_len, head_dim)   v (batch, kv_heads, kv_len, value_dim)
//   out (batch, heads, q_len, value_dim)   lse (batch, heads, q_len) of the sums' type, or NULL   weights: or NULL
// q, k, v and out are of one type: float32, float64, bfloat16 or float16.
MH_API mh_status mh_attention(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                              const mh_tensor* lse, const mh_weights_request* weights,
                              const mh_attention_options* options);

// The same with statistics of every row's weights, in memory linear in length; statistics: or NULL.
MH_API mh_status mh_attention_statistics(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v,
                                         const mh_tensor* out, const mh_tensor* lse, const mh_weights_request* weights,
                                         const mh_statistics_request* statistics, const mh_attention_options* options);

// The same statistics from weights that are already there, (batch, heads, q_len, kv_len), float32 or float64; query i
// is at position i + query_offset. statistics_of_weights() of statistics.hpp.
MH_API mh_status mh_statistics_of_weights(const mh_tensor* weights, const mh_statistics_request* statistics,
                                          int64_t query_offset);

// The weights alone, of keys that are all the row sees or a part of it; attention_weights() of attention.hpp. float32
// and float64. lse may be NULL but for normalised ones.
MH_API mh_status mh_attention_weights(const mh_tensor* q, const mh_tensor* k, const mh_tensor* lse,
                                      const mh_weights_request* weights, const mh_attention_options* options);

// Attention over two disjoint sets of keys joined into attention over both; merge() of attention.hpp. float32 and
// float64. out and lse may be out_a and lse_a. run's target is used; its threads and parallel_for are accepted and not
// needed yet, its scratch is not used.
MH_API mh_status mh_merge(const mh_tensor* out_a, const mh_tensor* lse_a, const mh_tensor* out_b,
                          const mh_tensor* lse_b, const mh_tensor* out, const mh_tensor* lse,
                          const mh_run_options* run);

// Keys and values that the caller keeps in pages, row by row; PagedKeys of paged_attention.hpp.
typedef struct mh_paged_keys {
  uint32_t struct_size;
  int32_t reserved;              // 0
  const mh_tensor* k_pages;      // (pages, page_len, kv_heads, head_dim)
  const mh_tensor* v_pages;      // (pages, page_len, kv_heads, value_dim)
  const mh_tensor* block_table;  // (sequences, most pages of one) int32
  const mh_tensor* lengths;      // (sequences) int64: valid positions, the queries' own included
} mh_paged_keys;

MH_API void mh_paged_keys_init(mh_paged_keys* keys, size_t size);

// Attention of the last queries of each sequence over its pages; paged_attention() of paged_attention.hpp. lse: or
// NULL.
//   q (sequences, heads, q_len, head_dim)   out (sequences, heads, q_len, value_dim)   lse (sequences, heads, q_len)
// or, with options.cu_seqlens_q, batch 1 and the queries one after the other. float32, bfloat16 or float16.
MH_API mh_status mh_paged_attention(const mh_tensor* q, const mh_paged_keys* keys, const mh_tensor* out,
                                    const mh_tensor* lse, const mh_attention_options* options);

// Gradients of mh_attention, AttentionGradients of attention_backward.hpp: outputs that are overwritten; NULL: not
// asked for, and costs nothing. Sums: the type of lse.
typedef struct mh_attention_gradients {
  uint32_t struct_size;
  int32_t reserved;                // 0
  const mh_tensor *q, *k, *v;      // of the extents and type of q, k and v
  const mh_tensor* bias;           // rank 1 to 4, of the sums' type; summed over each axis of extent 1 or left out
  const mh_tensor* alibi_slopes;   // (heads) float64
  const mh_tensor* relative_bias;  // (buckets, heads) of the sums' type
  const mh_tensor* sinks;          // (heads) float64
  const mh_tensor* scale;          // (1) float64
} mh_attention_gradients;

MH_API void mh_attention_gradients_init(mh_attention_gradients* gradients, size_t size);

// From d_out (batch, heads, q_len, value_dim), and d_lse (batch, heads, q_len) or NULL, to the gradients of what
// mh_attention read; attention_backward() of attention_backward.hpp. q, k, v, out, lse and options are those of the
// forward call, lse included.
MH_API mh_status mh_attention_backward(const mh_tensor* q, const mh_tensor* k, const mh_tensor* v, const mh_tensor* out,
                                       const mh_tensor* lse, const mh_tensor* d_out, const mh_tensor* d_lse,
                                       const mh_attention_gradients* gradients, const mh_attention_options* options);

// The extents of one call, for questions that need no data.
typedef struct mh_attention_shape {
  uint32_t struct_size;
  mh_type type;                                                        // MH_FLOAT32 by init
  int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;  // 1, 1, 1, 0, 0, 0, 0 by init
} mh_attention_shape;

MH_API void mh_attention_shape_init(mh_attention_shape* shape, size_t size);

// Bytes of scratch that mh_attention takes with these extents, options and threads; weights: 1 if any are asked for.
// Masks and lists are read as far as the plan needs them.
MH_API mh_status mh_attention_scratch_bytes(const mh_attention_shape* shape, const mh_attention_options* options,
                                            int32_t weights, size_t* bytes);
// The same of mh_attention_statistics: of statistics what is asked for counts, and how much of it is read.
MH_API mh_status mh_attention_statistics_scratch_bytes(const mh_attention_shape* shape,
                                                       const mh_attention_options* options, int32_t weights,
                                                       const mh_statistics_request* statistics, size_t* bytes);

// The same of mh_attention_backward, for any gradients asked for.
MH_API mh_status mh_attention_backward_scratch_bytes(const mh_attention_shape* shape,
                                                     const mh_attention_options* options, size_t* bytes);

// What would run and why; AttentionPlan of attention.hpp. Texts end with 0 and are cut off to fit.
typedef struct mh_attention_plan {
  uint32_t struct_size;
  mh_target target;
  int32_t row_block, key_block;
  int64_t tasks;
  double visible_pairs, flops;
  uint64_t scratch_bytes;
  char kernel[64];
  char why[256];
  char score_tile[64];
  char terms[128];
} mh_attention_plan;

MH_API void mh_attention_plan_init(mh_attention_plan* plan, size_t size);
MH_API mh_status mh_explain(const mh_attention_shape* shape, const mh_attention_options* options,
                            mh_attention_plan* plan);

// ---- From X to the output

// One head, self_attention() of layer.hpp: X (n, model_dim), Wq and Wk (model_dim, head_dim), Wv (model_dim,
// value_dim), output (n, value_dim), weights (n, n) or NULL. float32 or float64. Its scratch query is the one below
// with Wo NULL and one head.
MH_API mh_status mh_self_attention(const mh_tensor* X, const mh_tensor* Wq, const mh_tensor* Wk, const mh_tensor* Wv,
                                   const mh_tensor* output, const mh_tensor* weights, const mh_run_options* run);

// Many heads, multi_head_attention() of layer.hpp: X (n, model_dim), Wq and Wk (model_dim, num_heads * head_dim),
// Wv (model_dim, num_heads * value_dim), Wo (num_heads * value_dim, out_dim), output (n, out_dim), per_head
// (num_heads, n, n) or NULL, mean (n, n) or NULL. float32 or float64.
MH_API mh_status mh_multi_head_attention(const mh_tensor* X, const mh_tensor* Wq, const mh_tensor* Wk,
                                         const mh_tensor* Wv, const mh_tensor* Wo, int64_t num_heads,
                                         const mh_tensor* output, const mh_tensor* per_head, const mh_tensor* mean,
                                         const mh_run_options* run);
MH_API mh_status mh_multi_head_attention_scratch_bytes(const mh_tensor* X, const mh_tensor* Wq, const mh_tensor* Wk,
                                                       const mh_tensor* Wv, const mh_tensor* Wo, int64_t num_heads,
                                                       const mh_run_options* run, int32_t weights, size_t* bytes);

// ---- The layer with weights of its own

typedef int32_t mh_weight_order;
enum {
  MH_ORDER_UNNAMED = 0,  // refused but by mh_layer_load
  MH_ORDER_IN_OUT = 1,
  MH_ORDER_OUT_IN = 2
};
typedef int32_t mh_fused_order;
enum { MH_FUSED_BLOCKS = 0, MH_FUSED_GROUPS = 1 };
typedef int32_t mh_head_norm;
enum { MH_NORM_NONE = 0, MH_NORM_RMS = 1, MH_NORM_RMS_PLUS_1 = 2, MH_NORM_LAYER = 3 };
typedef int32_t mh_rotary_pairing;
enum { MH_ROTARY_NONE = 0, MH_ROTARY_HALF_SPLIT = 1, MH_ROTARY_INTERLEAVED = 2 };

// MultiHeadSpec and RotaryOptions. What would not be read (of rotary without rotary, of a norm without its kind, of a
// fused weight without one) must be as init sets it.
typedef struct mh_layer_spec {
  uint32_t struct_size;
  mh_type type;  // of the weights: must be named
  int64_t heads;
  int64_t kv_heads;   // 0: heads
  int64_t value_dim;  // of a fused weight; 0: head_dim
  mh_weight_order order;
  mh_fused_order fused_order;
  int32_t has_scale;
  int32_t add_zero_attn;
  double scale;
  mh_head_norm q_norm, k_norm;
  double q_norm_eps, k_norm_eps;                           // 1e-6 by init
  mh_rotary_pairing rotary;                                // MH_ROTARY_NONE: queries and keys are not turned
  int32_t reserved;                                        // 0
  int64_t rotary_dim;                                      // 0: head_dim
  double rotary_theta;                                     // 10000 by init
  const char* rotary_scaling;                              // "default", "linear" or "llama3"; NULL: "default"
  double rotary_factor;                                    // 1 by init
  double rotary_low_freq_factor, rotary_high_freq_factor;  // 1, 4 by init
  int64_t rotary_original_max_position_embeddings;         // 8192 by init
  int64_t max_positions;                                   // 4096 by init
} mh_layer_spec;

MH_API void mh_layer_spec_init(mh_layer_spec* spec, size_t size);

// MultiHeadWeights: matrices of rank 2, biases of rank 1, all of the spec's type. Either q, k and v, or qkv.
typedef struct mh_layer_weights {
  uint32_t struct_size;
  int32_t reserved;  // 0
  const mh_tensor *q, *k, *v, *qkv, *out;
  const mh_tensor *q_bias, *k_bias, *v_bias, *qkv_bias, *out_bias;
  const mh_tensor *bias_k, *bias_v;
  const mh_tensor *q_norm, *k_norm, *q_norm_bias, *k_norm_bias;
} mh_layer_weights;

MH_API void mh_layer_weights_init(mh_layer_weights* weights, size_t size);

// A tensor of a checkpoint, contiguous. Without struct_size, as mh_tensor: fixed for good.
typedef struct mh_named_tensor {
  const char* name;
  mh_tensor tensor;
} mh_named_tensor;

typedef struct mh_layer mh_layer;

// Copies and packs the weights. *layer is set only on MH_OK, and freed by mh_layer_destroy.
MH_API mh_status mh_layer_create(const mh_layer_spec* spec, const mh_layer_weights* weights, mh_layer** layer);
// load_layer() of layouts.hpp: the layer that these tensors describe; those whose names do not begin with prefix (NULL:
// "") are not read. The layout fixes orders and kinds of norms: what spec says of them must agree. spec gives type,
// heads and what tensors do not say.
MH_API mh_status mh_layer_load(const char* layout, const mh_named_tensor* tensors, size_t count, const char* prefix,
                               const mh_layer_spec* spec, mh_layer** layer);
// NULL is fine.
MH_API void mh_layer_destroy(mh_layer* layer);

// MultiHeadExtents.
typedef struct mh_layer_extents {
  uint32_t struct_size;
  mh_type type;
  int64_t model_dim, kdim, vdim, heads, kv_heads, head_dim, value_dim, out_dim, extra_keys;
} mh_layer_extents;

MH_API void mh_layer_extents_init(mh_layer_extents* extents, size_t size);
MH_API mh_status mh_layer_get_extents(const mh_layer* layer, mh_layer_extents* extents);

// MultiHeadOptions. attention->run is the layer's: its scratch is what mh_layer_scratch_bytes says.
typedef struct mh_layer_options {
  uint32_t struct_size;
  int32_t reserved;  // 0
  const mh_attention_options* attention;
  const mh_tensor* q_positions;  // (batch, q_len) int64, with rotary
  const mh_tensor* k_positions;  // (batch, kv_len) int64
  const mh_tensor* gates;        // (heads) float64
} mh_layer_options;

MH_API void mh_layer_options_init(mh_layer_options* options, size_t size);

// MultiHeadRequests: outputs beside the output, of the sums' type.
typedef struct mh_layer_requests {
  uint32_t struct_size;
  int32_t reserved;        // 0
  const mh_tensor* lse;    // (batch, heads, q_len)
  const mh_tensor* heads;  // (batch, heads, q_len, value_dim)
  const mh_weights_request* weights;
  const mh_statistics_request* statistics;
  const mh_tensor* norms;  // (batch, heads, kv_len), extra keys last: what norm_weighted is weighted with
} mh_layer_requests;

MH_API void mh_layer_requests_init(mh_layer_requests* requests, size_t size);

// query (batch, q_len, model_dim), key (batch, kv_len, kdim), value (batch, kv_len, vdim), output (batch, q_len,
// out_dim), all of the layer's type. key and value NULL: self-attention.
MH_API mh_status mh_layer_forward(const mh_layer* layer, const mh_tensor* query, const mh_tensor* key,
                                  const mh_tensor* value, const mh_tensor* output, const mh_layer_options* options,
                                  const mh_layer_requests* requests);
MH_API mh_status mh_layer_scratch_bytes(const mh_layer* layer, int64_t batch, int64_t q_len, int64_t kv_len,
                                        int32_t self, const mh_layer_options* options,
                                        const mh_layer_requests* requests, size_t* bytes);

// ---- A cache of keys and values

typedef int32_t mh_kv_storage;
enum { MH_KV_FLOAT32 = 0, MH_KV_BFLOAT16 = 1, MH_KV_FLOAT16 = 2, MH_KV_INT8 = 3 };
typedef int32_t mh_kv_scales;
enum { MH_KV_PER_TOKEN = 0, MH_KV_PER_CHANNEL = 1 };

// KvCacheSpec of kv_cache.hpp.
typedef struct mh_kv_cache_spec {
  uint32_t struct_size;
  mh_kv_storage storage;
  mh_kv_scales scales;  // of int8
  int32_t reserved;     // 0
  int64_t layers;       // 1 by init
  int64_t kv_heads, head_dim;
  int64_t value_dim;          // 0: head_dim
  int64_t pages;              // in all
  int64_t page_len;           // 128 by init; a multiple of 32
  int64_t window;             // -1 by init: every key is kept; otherwise those before a query's own that it may see
  int64_t first;              // with window: leading keys that are kept
  const mh_tensor* k_scales;  // (layers, kv_heads, head_dim) float32, with MH_KV_PER_CHANNEL
  const mh_tensor* v_scales;  // (layers, kv_heads, value_dim) float32
} mh_kv_cache_spec;

MH_API void mh_kv_cache_spec_init(mh_kv_cache_spec* spec, size_t size);

// Not for many threads at once where one of them changes it; any number may call mh_kv_cache_attention.
typedef struct mh_kv_cache mh_kv_cache;
// The name of a sequence of one cache, never 0 and never given twice.
typedef uint64_t mh_kv_sequence;

// Allocates all pages. *cache is set only on MH_OK, and freed by mh_kv_cache_destroy.
MH_API mh_status mh_kv_cache_create(const mh_kv_cache_spec* spec, mh_kv_cache** cache);
MH_API void mh_kv_cache_destroy(mh_kv_cache* cache);  // NULL is fine

// Pages that no sequence holds, and sequences.
MH_API mh_status mh_kv_cache_free_pages(const mh_kv_cache* cache, int64_t* pages);
MH_API mh_status mh_kv_cache_sequences(const mh_kv_cache* cache, int64_t* count);

MH_API mh_status mh_kv_cache_add(mh_kv_cache* cache, mh_kv_sequence* sequence);  // an empty one

// One of the same first length positions, in shared pages; -1: all of them.
MH_API mh_status mh_kv_cache_fork(mh_kv_cache* cache, mh_kv_sequence source, int64_t length, mh_kv_sequence* sequence);
MH_API mh_status mh_kv_cache_remove(mh_kv_cache* cache, mh_kv_sequence sequence);
// Forgets positions from length on.
MH_API mh_status mh_kv_cache_truncate(mh_kv_cache* cache, mh_kv_sequence sequence, int64_t length);
MH_API mh_status mh_kv_cache_length(const mh_kv_cache* cache, mh_kv_sequence sequence, int64_t layer, int64_t* length);
// The positions [*begin, *end) that a sliding cache gave back.
MH_API mh_status mh_kv_cache_given_back(const mh_kv_cache* cache, mh_kv_sequence sequence, int64_t* begin,
                                        int64_t* end);

// Appends positions to each of count sequences: k (sequences, kv_heads, tokens, head_dim), v (.., value_dim); with
// cu_seqlens (sequences + 1) int64 batch 1 and one after the other. cu_seqlens: or NULL.
MH_API mh_status mh_kv_cache_append(mh_kv_cache* cache, int64_t layer, const mh_kv_sequence* sequences, size_t count,
                                    const mh_tensor* k, const mh_tensor* v, const mh_tensor* cu_seqlens);
// Positions from first on, as many as k and v have: k (kv_heads, positions, head_dim), v (.., value_dim), of the type
// that the cache stores; float32 of int8.
MH_API mh_status mh_kv_cache_read(const mh_kv_cache* cache, int64_t layer, mh_kv_sequence sequence, int64_t first,
                                  const mh_tensor* k, const mh_tensor* v);

// Attention of the last queries of each sequence over what the cache holds; attention() of kv_cache.hpp. lse: or NULL.
//   q (sequences, heads, q_len, head_dim)   out (sequences, heads, q_len, value_dim)   lse (sequences, heads, q_len)
// or, with options.cu_seqlens_q, batch 1 and the queries one after the other. q and out are of the type that the cache
// stores; over int8 float32, bfloat16 or float16.
MH_API mh_status mh_kv_cache_attention(const mh_kv_cache* cache, int64_t layer, const mh_kv_sequence* sequences,
                                       size_t count, const mh_tensor* q, const mh_tensor* out, const mh_tensor* lse,
                                       const mh_attention_options* options);

// A sequence to a .safetensors file and back; kv_cache_files.hpp. MH_UNSUPPORTED: the library is built without models.
MH_API mh_status mh_kv_cache_save(const mh_kv_cache* cache, mh_kv_sequence sequence, const char* path);
MH_API mh_status mh_kv_cache_load(mh_kv_cache* cache, const char* path, mh_kv_sequence* sequence);

// ---- Encoders

// An encoder of the BERT family with its tokenizer where the folder has one. States and vectors are float32.
typedef struct mh_encoder mh_encoder;

// From a folder with config.json and weights (Encoder of encoder.hpp). A folder whose tokenizer is missing or of
// another kind still opens: texts are then refused, with the reason.
MH_API mh_status mh_encoder_open(const char* folder, mh_encoder** encoder);

// EncoderOptions.
typedef struct mh_encoder_options {
  uint32_t struct_size;
  mh_type precision;  // MH_FLOAT32 by init, MH_BFLOAT16 or MH_FLOAT16: what the weights are rounded to
  mh_type products;   // MH_FLOAT32 by init or MH_BFLOAT16: what is multiplied
  int32_t reserved;   // 0
} mh_encoder_options;

MH_API void mh_encoder_options_init(mh_encoder_options* options, size_t size);
// mh_encoder_open with options.
MH_API mh_status mh_encoder_open_with(const char* folder, const mh_encoder_options* options, mh_encoder** encoder);
MH_API void mh_encoder_destroy(mh_encoder* encoder);

typedef struct mh_encoder_extents {
  uint32_t struct_size;
  int32_t texts;  // 1: mh_encoder_tokens and mh_encoder_encode work
  int64_t layers, heads, head_dim, model_dim, intermediate_dim, vocab_size, token_types, max_tokens;
} mh_encoder_extents;

MH_API void mh_encoder_extents_init(mh_encoder_extents* extents, size_t size);
MH_API mh_status mh_encoder_get_extents(const mh_encoder* encoder, mh_encoder_extents* extents);

// EncoderInput and EncoderRequests. Sequences are packed one after the other.
typedef struct mh_encoder_call {
  uint32_t struct_size;
  int32_t reserved;                          // 0
  const mh_tensor* ids;                      // (tokens) int64
  const mh_tensor* cu_seqlens;               // (sequences + 1) int64; NULL: one sequence
  const mh_tensor* token_types;              // (tokens) int64; NULL: zeros
  const mh_tensor* hidden_states;            // output (layers + 1, tokens, model_dim) float32, or NULL
  const mh_weights_request* const* weights;  // one a layer, or NULL
  size_t weights_count;                      // 0 or layers
  const mh_tensor* gates;                    // (layers, heads) float64, multiplied onto the heads' outputs; NULL: ones
  const mh_statistics_request* const* statistics;  // one a layer, or NULL
  size_t statistics_count;                         // 0 or layers
  const mh_tensor* norms;  // output (layers, heads, tokens) float32, or NULL: what norm_weighted is weighted with
} mh_encoder_call;

MH_API void mh_encoder_call_init(mh_encoder_call* call, size_t size);

// output (tokens, model_dim) float32. run's scratch is not used.
MH_API mh_status mh_encoder_forward(const mh_encoder* encoder, const mh_encoder_call* call, const mh_tensor* output,
                                    const mh_run_options* run);

// The tokens of a text (UTF-8, length bytes), with the tokens that the tokenizer adds at its ends. ids, begins and ends
// (bytes of the text) have room for capacity elements, and each may be NULL with capacity 0 to ask for the count alone.
// *count is set, also when the status is MH_SHAPE_MISMATCH because capacity is smaller: the exception to the rule that
// a call that fails writes nothing.
MH_API mh_status mh_encoder_tokens(const mh_encoder* encoder, const char* text, size_t length, int64_t* ids,
                                   int64_t* begins, int64_t* ends, size_t capacity, size_t* count);
// "##ing"; the encoder's own, NULL for an id that is none.
MH_API const char* mh_encoder_token_text(const mh_encoder* encoder, int64_t id);

// Sentences to vectors (count, model_dim), as SentenceEncoder computes them. Texts are UTF-8, ended by 0.
MH_API mh_status mh_encoder_encode(const mh_encoder* encoder, const char* const* texts, size_t count,
                                   const mh_tensor* vectors, const mh_run_options* run);

#ifdef __cplusplus
}
#endif

#endif
