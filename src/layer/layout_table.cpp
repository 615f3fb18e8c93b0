// SPDX-License-Identifier: Apache-2.0
// The layouts. All but qwen3 are held to their family's own code by tests/torch_layer_test.py and
// tests/keras_flax_layer_test.py.
#include "layer/layouts.hpp"

namespace multihead {

namespace {

constexpr bool kOptional = false;

constexpr LayoutTensor kBert[] = {
    {Slot::q, "self.query.weight", "QE"},     {Slot::q_bias, "self.query.bias", "Q"},
    {Slot::k, "self.key.weight", "Kk"},       {Slot::k_bias, "self.key.bias", "K"},
    {Slot::v, "self.value.weight", "Vv"},     {Slot::v_bias, "self.value.bias", "V"},
    {Slot::out, "output.dense.weight", "OX"}, {Slot::out_bias, "output.dense.bias", "O"},
};
constexpr std::string_view kBertBeside[] = {"output.LayerNorm.weight", "output.LayerNorm.bias",
                                            "output.LayerNorm.gamma", "output.LayerNorm.beta"};

constexpr LayoutTensor kDistilbert[] = {
    {Slot::q, "q_lin.weight", "QE"},     {Slot::q_bias, "q_lin.bias", "Q"},     {Slot::k, "k_lin.weight", "KE"},
    {Slot::k_bias, "k_lin.bias", "K"},   {Slot::v, "v_lin.weight", "VE"},       {Slot::v_bias, "v_lin.bias", "V"},
    {Slot::out, "out_lin.weight", "OX"}, {Slot::out_bias, "out_lin.bias", "O"},
};

constexpr LayoutTensor kFlax[] = {
    {Slot::q, "query/kernel", "EHd"},      {Slot::q_bias, "query/bias", "Hd", kOptional},
    {Slot::k, "key/kernel", "kGd"},        {Slot::k_bias, "key/bias", "Gd", kOptional},
    {Slot::v, "value/kernel", "vGD"},      {Slot::v_bias, "value/bias", "GD", kOptional},
    {Slot::out, "out/kernel", "HDO"},      {Slot::out_bias, "out/bias", "O", kOptional},
    {Slot::q_norm, "query_ln/scale", "d"}, {Slot::k_norm, "key_ln/scale", "d"},
};
constexpr std::span<const LayoutTensor> kFlaxPlain(kFlax, 8);

constexpr LayoutTensor kGpt2[] = {
    {Slot::qkv, "c_attn.weight", "EF"},
    {Slot::qkv_bias, "c_attn.bias", "F"},
    {Slot::out, "c_proj.weight", "XO"},
    {Slot::out_bias, "c_proj.bias", "O"},
};
constexpr std::string_view kGpt2Beside[] = {"bias", "masked_bias"};  // the causal mask, stored as if it were learned

constexpr LayoutTensor kGptNeox[] = {
    {Slot::qkv, "query_key_value.weight", "FE"},
    {Slot::qkv_bias, "query_key_value.bias", "F", kOptional},
    {Slot::out, "dense.weight", "OX"},
    {Slot::out_bias, "dense.bias", "O", kOptional},
};
constexpr std::string_view kGptNeoxBeside[] = {"bias", "masked_bias", "rotary_emb.inv_freq"};

constexpr LayoutTensor kKeras[] = {
    {Slot::q, "query/kernel", "EHd"},
    {Slot::q_bias, "query/bias", "Hd", kOptional},
    {Slot::k, "key/kernel", "kGd"},
    {Slot::k_bias, "key/bias", "Gd", kOptional},
    {Slot::v, "value/kernel", "vGD"},
    {Slot::v_bias, "value/bias", "GD", kOptional},
    {Slot::out, "attention_output/kernel", "HDO"},
    {Slot::out_bias, "attention_output/bias", "O", kOptional},
};

constexpr LayoutTensor kLlama[] = {
    {Slot::q, "q_proj.weight", "QE"},     {Slot::q_bias, "q_proj.bias", "Q", kOptional},
    {Slot::k, "k_proj.weight", "KE"},     {Slot::k_bias, "k_proj.bias", "K", kOptional},
    {Slot::v, "v_proj.weight", "VE"},     {Slot::v_bias, "v_proj.bias", "V", kOptional},
    {Slot::out, "o_proj.weight", "OX"},   {Slot::out_bias, "o_proj.bias", "O", kOptional},
    {Slot::q_norm, "q_norm.weight", "d"}, {Slot::k_norm, "k_norm.weight", "d"},
};
constexpr std::span<const LayoutTensor> kLlamaPlain(kLlama, 8);
constexpr std::string_view kLlamaBeside[] = {"rotary_emb.inv_freq"};

constexpr LayoutTensor kMistral[] = {
    {Slot::q, "q_proj.weight", "QE"},
    {Slot::k, "k_proj.weight", "KE"},
    {Slot::v, "v_proj.weight", "VE"},
    {Slot::out, "o_proj.weight", "OX"},
};

constexpr LayoutTensor kPhi3[] = {
    {Slot::qkv, "qkv_proj.weight", "FE"},
    {Slot::out, "o_proj.weight", "OX"},
};

constexpr LayoutTensor kQwen2[] = {
    {Slot::q, "q_proj.weight", "QE"},   {Slot::q_bias, "q_proj.bias", "Q"}, {Slot::k, "k_proj.weight", "KE"},
    {Slot::k_bias, "k_proj.bias", "K"}, {Slot::v, "v_proj.weight", "VE"},   {Slot::v_bias, "v_proj.bias", "V"},
    {Slot::out, "o_proj.weight", "OX"},
};

constexpr LayoutTensor kT5[] = {
    {Slot::q, "q.weight", "QE"},
    {Slot::k, "k.weight", "Kk"},
    {Slot::v, "v.weight", "Vv"},
    {Slot::out, "o.weight", "OX"},
};

constexpr LayoutTensor kTorchFused[] = {
    {Slot::qkv, "in_proj_weight", "FE"},        {Slot::qkv_bias, "in_proj_bias", "F", kOptional},
    {Slot::out, "out_proj.weight", "OX"},       {Slot::out_bias, "out_proj.bias", "O", kOptional},
    {Slot::bias_k, "bias_k", "11K", kOptional}, {Slot::bias_v, "bias_v", "11V", kOptional},
};
constexpr LayoutTensor kTorchSeparate[] = {
    {Slot::q, "q_proj_weight", "QE"},           {Slot::k, "k_proj_weight", "Kk"},
    {Slot::v, "v_proj_weight", "Vv"},           {Slot::qkv_bias, "in_proj_bias", "F", kOptional},
    {Slot::out, "out_proj.weight", "OX"},       {Slot::out_bias, "out_proj.bias", "O", kOptional},
    {Slot::bias_k, "bias_k", "11K", kOptional}, {Slot::bias_v, "bias_v", "11V", kOptional},
};

constexpr auto kInOut = WeightOrder::in_out, kOutIn = WeightOrder::out_in;
constexpr auto kBlocks = FusedOrder::blocks, kGroups = FusedOrder::groups;

constexpr LayoutForm kForms[] = {
    {"bert", "", kOutIn, kBert, kBertBeside},
    {"distilbert", "", kOutIn, kDistilbert},
    {"flax", "query_ln/scale", kInOut, kFlax, {}, kBlocks, false, false, HeadNorm::Kind::layer},
    {"flax", "", kInOut, kFlaxPlain},
    {"gpt2", "", kInOut, kGpt2, kGpt2Beside},
    {"gpt_neox", "", kOutIn, kGptNeox, kGptNeoxBeside, kGroups, true},
    {"keras", "", kInOut, kKeras},
    {"llama", "", kOutIn, kLlamaPlain, kLlamaBeside, kBlocks, true},
    {"mistral", "", kOutIn, kMistral, kLlamaBeside, kBlocks, true},
    {"phi3", "", kOutIn, kPhi3, kLlamaBeside, kBlocks, true},
    {"qwen2", "", kOutIn, kQwen2, kLlamaBeside, kBlocks, true},
    {"qwen3", "", kOutIn, kLlama, kLlamaBeside, kBlocks, true, false, HeadNorm::Kind::rms},
    {"roberta", "", kOutIn, kBert, kBertBeside},
    {"t5", "", kOutIn, kT5, {}, kBlocks, false, true},
    {"torch", "in_proj_weight", kOutIn, kTorchFused},
    {"torch", "q_proj_weight", kOutIn, kTorchSeparate},
    {"torch", "", kOutIn, kTorchFused},
};

}  // namespace

std::span<const LayoutForm> layout_forms() noexcept { return kForms; }

}  // namespace multihead
