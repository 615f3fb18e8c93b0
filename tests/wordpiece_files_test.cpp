// SPDX-License-Identifier: Apache-2.0
// tokenizer.json and vocab.txt: what they become, and every rule of their readers.
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "multihead/model_files.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using testing::bytes_of;
using testing::expect_refusal;
using Words = std::vector<std::string>;

const std::string kAdded = R"("added_tokens": [
    {"id": 4, "special": true, "content": "[MASK]", "single_word": false, "lstrip": true, "rstrip": false,
     "normalized": false},
    {"id": 0, "special": true, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false}],)";
const std::string kNormalizer = R"("normalizer": {"type": "BertNormalizer", "clean_text": true,
    "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},)";
const std::string kPre = R"("pre_tokenizer": {"type": "BertPreTokenizer"},)";
const std::string kPost = R"("post_processor": {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
    "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
      {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
      "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},)";
const std::string kModel = R"("model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5,
      "the": 6, "hel": 7, "##lo": 8, "##\u00e9": 9, ",": 10, "wor": 11}}})";
const std::string kWhole =
    R"({"version": "1.0", "truncation": {"max_length": 128, "strategy": "LongestFirst"}, "padding": null,)" + kAdded +
    kNormalizer + kPre + kPost + R"("decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},)" + kModel;

// The file with one piece of it replaced, which it must have.
std::string with(const std::string& piece, const std::string& other, std::string text = kWhole) {
  const std::size_t at = text.find(piece);
  EXPECT_NE(at, std::string::npos) << piece;
  return at == std::string::npos ? text : text.replace(at, piece.size(), other);
}
std::string token(const std::string& id, const std::string& content) {
  return R"({"id": )" + id + R"(, "content": )" + content +
         R"(, "special": false, "single_word": true, "lstrip": false, "rstrip": true, "normalized": true})";
}
std::string with_token(const std::string& id, const std::string& content) {
  return with(R"("added_tokens": [)", R"("added_tokens": [)" + token(id, content) + ",");
}

WordPieceModel parsed(const std::string& text) { return parse_tokenizer_json(bytes_of(text), "tokenizer.json"); }
WordPieceModel lines(const std::string& text) { return parse_vocabulary(bytes_of(text), "vocab.txt"); }

TEST(TokenizerJson, OfBert) {
  const WordPieceModel model = parsed(kWhole);
  EXPECT_EQ(model.vocabulary,
            (Words{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "hel", "##lo", "##\u00e9", ",", "wor"}));
  EXPECT_EQ(model.unknown + model.classify + model.separate + model.continuing, "[UNK][CLS][SEP]##");
  EXPECT_EQ(model.max_letters, 100);
  EXPECT_TRUE(model.clean_text && model.chinese_chars && model.lowercase);
  EXPECT_FALSE(model.strip_accents);
  ASSERT_EQ(model.added.size(), 2u);
  const AddedToken &pad = model.added[0], &mask = model.added[1];  // by id, whatever their order in the file
  EXPECT_EQ(pad.content + mask.content, "[PAD][MASK]");
  EXPECT_TRUE(pad.id == 0 && mask.id == 4 && pad.special && mask.lstrip);
  EXPECT_FALSE(pad.lstrip || mask.rstrip || mask.single_word || mask.normalized);
}

TEST(TokenizerJson, SettingsAreRead) {
  std::string text = with(R"("clean_text": true)", R"("clean_text": false)");
  text = with(R"("handle_chinese_chars": true)", R"("handle_chinese_chars": false)", text);
  text = with(R"("strip_accents": null)", R"("strip_accents": false)", text);
  text = with(R"("lowercase": true)", R"("lowercase": false)", text);
  text = with(R"("unk_token": "[UNK]")", R"("unk_token": "a")", text);
  text = with(R"("continuing_subword_prefix": "##")", R"("continuing_subword_prefix": "")", text);
  text = with("_per_word\": 100", "_per_word\": 7", text);
  const WordPieceModel model = parsed(text);
  EXPECT_FALSE(model.clean_text || model.chinese_chars || model.lowercase);
  EXPECT_EQ(model.strip_accents, false);
  EXPECT_EQ(model.unknown + model.continuing, "a");
  EXPECT_EQ(model.max_letters, 7);
}

TEST(TokenizerJson, OtherFormsOfTheSame) {
  EXPECT_EQ(parsed(with(R"("type": "WordPiece", "unk_token")", R"("unk_token")")).vocabulary.size(), 12u);
  EXPECT_TRUE(parsed(with(kAdded, "")).added.empty());
  const WordPieceModel bert =
      parsed(with(kPost, R"("post_processor": {"type": "BertProcessing", "sep": ["the", 6], "cls": ["a", 5]},)"));
  EXPECT_EQ(bert.classify + bert.separate, "athe");
  std::string named = kWhole;  // a first token of another name
  for (int i = 0; i < 2; ++i)
    named = with(R"({"SpecialToken": {"id": "[CLS]")", R"({"SpecialToken": {"id": "a")", named);
  named = with(R"("[CLS]": {"id": "[CLS]", "ids": [2])", R"("a": {"id": "a", "ids": [5])", named);
  EXPECT_EQ(parsed(named).classify, "a");
}

TEST(TokenizerJson, IdsMayLeaveGaps) {
  const WordPieceModel gap = parsed(with("\"wor\": 11", "\"wor\": 13"));
  ASSERT_EQ(gap.vocabulary.size(), 14u);
  EXPECT_TRUE(gap.vocabulary[11].empty() && gap.vocabulary[12].empty());
}

TEST(TokenizerJson, AddedTokensContinueTheVocabulary) {
  const WordPieceModel model = parsed(with_token("12", "\"[NEW]\""));
  ASSERT_EQ(model.vocabulary.size(), 12u);  // no word is cut into it
  ASSERT_EQ(model.added.size(), 3u);
  EXPECT_EQ(model.added[2].content, "[NEW]");
  const AddedToken& added = model.added[2];
  EXPECT_TRUE(added.id == 12 && added.single_word && added.rstrip && added.normalized);
  EXPECT_FALSE(added.special || added.lstrip);
}

struct Bad {
  const char* name;
  std::string text;
  const char* words;
  ErrorCode code = ErrorCode::file_malformed;
  friend void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }
};

constexpr ErrorCode kOther = ErrorCode::unsupported;
const char* const kPieces = "its post_processor puts other pieces together than";
const std::vector<Bad> kBad{
    {"NotJson", kWhole + "}", "this is not JSON"},
    {"AnArray", "[]", "it is of type array; it must be an object"},
    {"NoModel", "{}", "field 'model' is missing"},
    {"ModelText", R"({"model": "WordPiece"})", "model is of type string; it must be an object"},
    {"Bpe", with("\"WordPiece\", \"unk", "\"BPE\", \"unk"), "its model is BPE; it must be WordPiece", kOther},
    {"OfNoType", R"({"model": {"vocab": {}, "merges": []}})", "its model is of no type; it must be", kOther},
    {"NormalizerSequence", with("BertNormalizer", "Sequence"), "its normalizer is Sequence; it must be Bert", kOther},
    {"NormalizerNull", with(kNormalizer, "\"normalizer\": null,"), "it has no normalizer; it must have Bert", kOther},
    {"PreTokenizer", with("BertPreTokenizer", "Whitespace"), "its pre_tokenizer is Whitespace; it must be", kOther},
    {"PreTokenizerAbsent", with(kPre, ""), "it has no pre_tokenizer; it must have BertPreTokenizer", kOther},
    {"FlagNull", with("\"lowercase\": true", "\"lowercase\": null"), "field 'normalizer.lowercase' is missing"},
    {"FlagNumber", with("\"clean_text\": true", "\"clean_text\": 1"), "'normalizer.clean_text' is 1; it must be true"},
    {"NoUnknown", with("\"unk_token\": \"[UNK]\",", ""), "field 'model.unk_token' is missing"},
    {"NoPrefix", with("\"continuing_subword_prefix\": \"##\",", ""), "'model.continuing_subword_prefix' is missing"},
    {"LettersNegative", with("_word\": 100", "_word\": -1"), "'model.max_input_chars_per_word' is -1; it must be"},
    {"NoVocabulary", with("\"vocab\"", "\"words\""), "field 'model.vocab' is missing"},
    {"VocabularyArray", with("\"vocab\": {", "\"vocab\": [], \"words\": {"), "model.vocab is of type array; it must"},
    {"VocabularyEmpty", with("\"vocab\": {", "\"vocab\": {}, \"words\": {"), "'model.vocab' is empty; it must have"},
    {"TokenTwice", with("\"wor\"", "\"the\""), "an object has the key 'the' twice"},
    {"IdTwice", with("\"wor\": 11", "\"wor\": 6"), "has id 6, as 'the' has; ids must differ"},
    {"IdHostile", with("\"wor\": 11", "\"wor\": 1099511627776"),
     "'model.vocab.wor' is 1099511627776; it must be an id"},
    {"IdNegative", with("\"wor\": 11", "\"wor\": -1"), "field 'model.vocab.wor' is -1; it must be an id from 0 to"},
    {"IdReal", with("\"wor\": 11", "\"wor\": 11.0"), "field 'model.vocab.wor' is 11.0; it must be an id from 0 to"},
    {"IdText", with("\"wor\": 11", "\"wor\": \"11\""), "field 'model.vocab.wor' is of type string; it must be an id"},
    {"TokenEmpty", with("\"wor\"", "\"\""), "field 'model.vocab.' is a token without a letter; it must have one"},
    {"AddedObject", with(kAdded, "\"added_tokens\": {},"), "field 'added_tokens' is of type object; it must be an arr"},
    {"AddedNumber", with(kAdded, "\"added_tokens\": [1],"), "added_tokens[0] is 1; it must be an object"},
    {"AddedOfAnother", with_token("6", "\"[NEW]\""), "'added_tokens[0].id' is 6, which is that of 'the'; ids must"},
    {"AddedHostile", with_token("1099511627776", "\"[NEW]\""), "'added_tokens[0].id' is 1099511627776; it must be"},
    {"AddedFarther", with_token("13", "\"[NEW]\""),
     "'added_tokens[0].id' is 13; of a token that the vocabulary lacks it"},
    {"AddedNegative", with_token("-1", "\"[NEW]\""), "field 'added_tokens[0].id' is -1; it must be a whole number"},
    {"AddedEmpty", with_token("12", "\"\""), "field 'added_tokens[0].content' is empty; it must be a token"},
    {"AddedContentNumber", with_token("12", "7"), "field 'added_tokens[0].content' is 7; it must be a string"},
    {"AddedWithoutContent", with_token("12", "null"), "field 'added_tokens[0].content' is missing"},
    {"AddedWithoutId", with_token("null", "\"[NEW]\""), "field 'added_tokens[0].id' is missing"},
    {"AddedTwice", with_token("4", "\"[MASK]\""), "field 'added_tokens' has id 4 twice; ids must differ"},
    {"AddedKnown", with_token("12", "\"the\""), "'added_tokens' gives token 'the' a second id; it must have one"},
    {"NoSpecial", with("\"special\": true, ", ""), "field 'added_tokens[0].special' is missing"},
    {"NoSingleWord", with("\"single_word\": false,", ""), "field 'added_tokens[0].single_word' is missing"},
    {"NoLstrip", with("\"lstrip\": true,", ""), "field 'added_tokens[0].lstrip' is missing"},
    {"NoRstrip", with("\"rstrip\": false,", ""), "field 'added_tokens[0].rstrip' is missing"},
    {"NormalizedNumber", with("\"normalized\": false", "\"normalized\": 0"), "'added_tokens[0].normalized' is 0; it"},
    {"PostAbsent", with(kPost, ""), "it has no post_processor; it must have TemplateProcessing or Bert", kOther},
    {"PostNull", with(kPost, "\"post_processor\": null,"), "it has no post_processor; it must have", kOther},
    {"PostRoberta", with("TemplateProcessing", "RobertaProcessing"), "its post_processor is RobertaProcessing", kOther},
    {"PostTypes", with("\"B\", \"type_id\": 1", "\"B\", \"type_id\": 0"), kPieces, kOther},
    {"PostShort", with("{\"SpecialToken\": {\"id\": \"[CLS]\", \"type_id\": 0}},", ""), kPieces, kOther},
    {"PostTextNamedA", with("{\"Sequence\": {\"id\": \"A\"", "{\"SpecialToken\": {\"id\": \"A\""), kPieces, kOther},
    {"PostOtherPair",
     with("\"pair\": [{\"SpecialToken\": {\"id\": \"[CLS]\"", "\"pair\": [{\"SpecialToken\": {\"id\": \"a\""), kPieces,
     kOther},
    {"PostNoPair", with("\"pair\"", "\"two\""), "field 'post_processor.pair' is missing"},
    {"PostSingleText", with("\"single\": [", "\"single\": \"$A\", \"x\": ["),
     "'post_processor.single' is of type string"},
    {"PostUnknownPiece", with("{\"Sequence\"", "{\"Text\""),
     "'post_processor.single[1]' must be one Sequence or one Sp"},
    {"PostPieceWithoutId", with("{\"id\": \"A\",", "{"), "field 'post_processor.single[1].Sequence.id' is missing"},
    {"PostTypeNegative", with("\"B\", \"type_id\": 1", "\"B\", \"type_id\": -1"),
     "pair[3].Sequence.type_id' is -1; it must be"},
    {"PostNoTokens", with("\"special_tokens\"", "\"tokens\""), "field 'post_processor.special_tokens' is missing"},
    {"PostTokenNotThere", with("\"[SEP]\": {\"id\"", "\"x\": {\"id\""),
     "'post_processor.special_tokens.[SEP]' is missing"},
    {"PostOtherId", with("\"ids\": [2]", "\"ids\": [5]"), "[CLS].ids' is 5; it must be the id of '[CLS]' in the"},
    {"PostIdBeyond", with("\"ids\": [2]", "\"ids\": [12]"), "[CLS].ids' is 12; it must be the id of '[CLS]' in the"},
    {"PostTwoIds", with("\"ids\": [2]", "\"ids\": [2, 5]"), "[CLS].ids' must be an array of one id"},
    {"BertOtherId", with(kPost, R"("post_processor": {"type": "BertProcessing", "sep": ["the", 6], "cls": ["a", 4]},)"),
     "field 'post_processor.cls' is 4; it must be the id of 'a' in the vocabulary"},
    {"BertWithoutSep", with(kPost, R"("post_processor": {"type": "BertProcessing", "cls": ["a", 5]},)"),
     "field 'post_processor.sep' must be a token and its id"}};

class TokenizerJsonRefuses : public ::testing::TestWithParam<Bad> {};
INSTANTIATE_TEST_SUITE_P(Texts, TokenizerJsonRefuses, ::testing::ValuesIn(kBad),
                         [](const auto& i) { return i.param.name; });

TEST_P(TokenizerJsonRefuses, ByFileFieldAndRule) {
  const Bad& bad = GetParam();
  expect_refusal(bad.code, [&] { parsed(bad.text); }, {"parse_tokenizer_json: tokenizer.json: ", bad.words});
}

const std::string kLines = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##\u00e9\n\u4e2d\n";
const Words kTokens{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##\u00e9", "\u4e2d"};

TEST(VocabTxt, ATokenALine) {
  const WordPieceModel model = lines(kLines);
  EXPECT_EQ(model.vocabulary, kTokens);
  ASSERT_EQ(model.added.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(model.added[i].content, kTokens[i]);
    EXPECT_EQ(model.added[i].id, static_cast<std::int64_t>(i));
    EXPECT_TRUE(model.added[i].special && !model.added[i].normalized && !model.added[i].lstrip);
  }
  EXPECT_EQ(lines(kLines.substr(0, kLines.size() - 1)).vocabulary, kTokens);  // no newline at the end
  std::string windows;
  for (const std::string& one : kTokens) windows += one + "\r\n";
  EXPECT_EQ(lines(windows).vocabulary, kTokens);
  EXPECT_EQ(lines("a \t\nb\r").vocabulary, (Words{"a", "b"}));  // what follows a token, as Hugging Face has it
  EXPECT_EQ(lines("\U0010FFFF\n\u0800\n\xed\x9f\xbf\n\x7f").vocabulary.size(), 4u);
}

const std::vector<Bad> kBadLines{{"Empty", "", "it holds no token; it must hold one a line"},
                                 {"EmptyLine", "a\n\nb\n", "line 2: it is empty; each line must be a token"},
                                 {"EmptyAtTheEnd", "a\n\n", "line 2: it is empty"},
                                 {"OnlySpaces", "a\n  \n", "line 2: it is empty"},
                                 {"Twice", "a\nb\na\n", "line 3: token 'a' stands there already; tokens must differ"},
                                 {"TwiceTrimmed", "a\na\r\n", "line 2: token 'a' stands there already"},
                                 {"ByteOrderMark", "\xEF\xBB\xBF[PAD]\n", "byte 0: a byte order mark"},
                                 {"NotUtf8", "a\n\xff\n", "line 2: '\\xff' is not UTF-8; a token must be"},
                                 {"Continuation", "\x80\n", "line 1: '\\x80' is not UTF-8"},
                                 {"Overlong2", "\xc0\xaf\n", "is not UTF-8"},
                                 {"Overlong2High", "\xc1\xbf\n", "is not UTF-8"},
                                 {"Overlong3", "\xe0\x9f\xbf\n", "is not UTF-8"},
                                 {"Overlong4", "\xf0\x8f\xbf\xbf\n", "is not UTF-8"},
                                 {"SurrogateHigh", "\xed\xa0\x80\n", "is not UTF-8"},
                                 {"SurrogateLow", "\xed\xbf\xbf\n", "is not UTF-8"},
                                 {"Beyond", "\xf4\x90\x80\x80\n", "is not UTF-8"},
                                 {"FarBeyond", "\xf5\x80\x80\x80\n", "is not UTF-8"},
                                 {"CutByTheLine", "\xe2\x82\n\xac\n", "line 1: '\\xe2\\x82' is not UTF-8"},
                                 {"CutByTheEnd", "a\n\xe2\x82", "line 2: '\\xe2\\x82' is not UTF-8"}};

class VocabTxtRefuses : public ::testing::TestWithParam<Bad> {};
INSTANTIATE_TEST_SUITE_P(Texts, VocabTxtRefuses, ::testing::ValuesIn(kBadLines),
                         [](const auto& i) { return i.param.name; });

TEST_P(VocabTxtRefuses, ByFileLineAndRule) {
  const Bad& bad = GetParam();
  expect_refusal(bad.code, [&] { lines(bad.text); }, {"parse_vocabulary: vocab.txt: ", bad.words});
}

class TokenizerFolder : public testing::InFolder {};

TEST_F(TokenizerFolder, OfVocabTxtAlone) {
  put("vocab.txt", kLines);
  const WordPieceModel model = read_wordpiece(folder_);
  EXPECT_EQ(model.vocabulary, kTokens);
  EXPECT_TRUE(model.lowercase && model.chinese_chars && !model.strip_accents);
  EXPECT_EQ(model.added.size(), 5u);
}

TEST_F(TokenizerFolder, OfVocabTxtAndItsSettings) {
  put("vocab.txt", kLines + "<s>\n</s>\n");
  put("tokenizer_config.json", R"({"do_lower_case": false, "strip_accents": true, "tokenize_chinese_chars": false,
    "cls_token": "<s>", "sep_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false}, "unk_token": "a",
    "mask_token": "none", "pad_token": null, "tokenizer_class": "BertTokenizer", "model_max_length": 512})");
  const WordPieceModel model = read_wordpiece(folder_);
  EXPECT_FALSE(model.lowercase || model.chinese_chars);
  EXPECT_EQ(model.strip_accents, true);
  EXPECT_EQ(model.classify + model.separate + model.unknown, "<s></s>a");
  Words added;
  for (const AddedToken& one : model.added) added.push_back(one.content);
  EXPECT_EQ(added, (Words{"[PAD]", "a", "<s>", "</s>"}));
}

TEST_F(TokenizerFolder, TokenizerJsonGoesFirst) {
  put("vocab.txt", kLines);
  put("tokenizer_config.json", R"({"do_lower_case": false})");
  put("tokenizer.json", kWhole);
  EXPECT_EQ(read_wordpiece(folder_).vocabulary.size(), 12u);
  EXPECT_TRUE(read_wordpiece(folder_).lowercase);
}

TEST_F(TokenizerFolder, IsRefusedByFileAndField) {
  const auto read = [&] { read_wordpiece(folder_); };
  const std::string start = "read_wordpiece: " + folder_.string();
  expect_refusal(ErrorCode::file_missing, read, {start + ": it holds neither tokenizer.json nor vocab.txt"});
  put("vocab.txt", "a\na\n");
  expect_refusal(ErrorCode::file_malformed, read, {start, "vocab.txt: line 2: "});
  put("vocab.txt", kLines);
  for (const auto& [text, words] : std::vector<std::pair<std::string, std::string>>{
           {"[]", "it is of type array; it must be an object"},
           {R"({"do_lower_case": 1})", "field 'do_lower_case' is 1; it must be true or false"},
           {R"({"cls_token": 1})", "field 'cls_token' is 1; it must be a string"},
           {R"({"sep_token": {}})", "field 'sep_token.content' is missing"}}) {
    put("tokenizer_config.json", text);
    expect_refusal(ErrorCode::file_malformed, read, {start, "tokenizer_config.json: " + words});
  }
  put("tokenizer_config.json", R"({"tokenizer_class": "MPNetTokenizer"})");
  expect_refusal(ErrorCode::unsupported, read, {start, "field 'tokenizer_class' is 'MPNetTokenizer'"});
  put("tokenizer_config.json", R"({"tokenizer_class": "DistilBertTokenizerFast"})");
  EXPECT_NO_THROW(read());
  put("tokenizer.json", "{}");
  expect_refusal(ErrorCode::file_malformed, read, {start, "tokenizer.json: field 'model' is missing"});
  std::filesystem::remove(folder_ / "tokenizer.json");
  std::filesystem::create_symlink("nowhere", folder_ / "tokenizer.json");
  expect_refusal(ErrorCode::file_missing, read, {start, "tokenizer.json: cannot be opened"});
}

}  // namespace
}  // namespace multihead
