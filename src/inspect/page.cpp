// SPDX-License-Identifier: Apache-2.0
// write_page(): the template, with a title, the page's JSON and a block of bytes for each head.
#include "inspect/page.hpp"

#include <ostream>

#include "core/float_mode.hpp"
#include "core/validate.hpp"

namespace multihead {

namespace {

std::string replaced(std::string text, std::string_view what, const std::string& by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

void write_block(std::ostream& out, const std::string& id, std::span<const std::byte> bytes, const Compress& compress) {
  out << "<script type=\"application/octet-stream\" id=\"" << id << "\">";
  if (compress) {
    const std::string packed = compress(bytes);
    out << base64(std::as_bytes(std::span(packed)));
  } else {
    out << base64(bytes);
  }
  out << "</script>\n";
}

}  // namespace

void write_page(std::ostream& out, const Page& page, const Compress& compress) {
  const FloatMode mode;
  const PagePlan plan = plan_page(page);
  const std::string whole = page_template();
  const std::string_view mark = "<!--data-->";
  const std::size_t data = whole.find(mark);
  out << replaced(whole.substr(0, data), "<!--title-->", html_text(page.title));
  out << "<script type=\"application/json\" id=\"meta\">" << page_json(page, plan, bool(compress)) << "</script>\n";
  for (std::int64_t layer = 0; layer < plan.layers; ++layer)
    for (std::int64_t head = 0; head < plan.heads; ++head)
      for (const bool norm : {false, true}) {
        if (norm && !plan.norm) continue;
        const std::string id = (norm ? "n" : "p") + std::to_string(layer) + "." + std::to_string(head);
        write_block(out, id, head_bytes(page, plan, layer, head, norm), compress);
        if (!out) fail(ErrorCode::file_missing, "write_page: out cannot be written");
      }
  out << std::string_view(whole).substr(data + mark.size());
  out.flush();
  if (!out) fail(ErrorCode::file_missing, "write_page: out cannot be written");
}

}  // namespace multihead
