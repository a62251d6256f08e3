#include "json.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>

#include "error.hpp"

namespace carina {
namespace {

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Json document() {
    Json value = any(0);
    space();
    if (at_ != text_.size()) fail("text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw Error(why + " at byte " + std::to_string(at_)); }

  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  char peek() {
    space();
    if (at_ >= text_.size()) fail("unexpected end");
    return text_[at_];
  }

  void expect(const char wanted) {
    if (peek() != wanted) fail(std::string("expected '") + wanted + "'");
    ++at_;
  }

  bool word(const std::string& name) {
    if (text_.compare(at_, name.size(), name) != 0) return false;
    at_ += name.size();
    return true;
  }

  Json any(int depth) {
    if (depth > 64) fail("nested too deeply");
    const char first = peek();
    if (first == '{') return object(depth);
    if (first == '[') return list(depth);
    if (first == '"') return string();
    if (word("true")) return true;
    if (word("false")) return false;
    if (word("null")) return nullptr;
    return number();
  }

  Json object(int depth) {
    Json::Object out;
    expect('{');
    while (peek() != '}') {
      if (!out.empty()) expect(',');
      peek();
      std::string key = string();
      expect(':');
      out.emplace_back(std::move(key), any(depth + 1));
    }
    ++at_;
    return out;
  }

  Json list(int depth) {
    Json::List out;
    expect('[');
    while (peek() != ']') {
      if (!out.empty()) expect(',');
      out.push_back(any(depth + 1));
    }
    ++at_;
    return out;
  }

  std::string string() {
    std::string out;
    expect('"');
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] != '\\') {
        out += text_[at_++];
        continue;
      }
      if (++at_ >= text_.size()) break;
      const char kind = text_[at_++];
      const std::string plain = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
      if (const auto which = plain.find(kind); which != std::string::npos) out += meant[which];
      else if (kind == 'u') out += code_point();
      else fail("unknown escape");
    }
    expect('"');
    return out;
  }

  std::string code_point() {
    unsigned code = 0;
    if (at_ + 4 > text_.size() ||
        std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16).ptr != text_.data() + at_ + 4)
      fail("bad \\u");
    at_ += 4;
    std::string out;
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xC0 | code >> 6);
      out += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      out += static_cast<char>(0xE0 | code >> 12);
      out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
      out += static_cast<char>(0x80 | (code & 0x3F));
    }
    return out;
  }

  Json number() {
    const size_t end = std::min(text_.find_first_not_of("+-0123456789.eE", at_), text_.size());
    const char *first = text_.data() + at_, *last = text_.data() + end;
    int64_t integer = 0;
    if (const auto read = std::from_chars(first, last, integer); read.ec == std::errc() && read.ptr == last && end > at_) {
      at_ = end;
      return integer;
    }
    double value = 0;
    if (const auto read = std::from_chars(first, last, value); read.ec != std::errc() || read.ptr != last || end == at_)
      fail("not a value");
    at_ = end;
    return value;
  }

  const std::string& text_;
  size_t at_ = 0;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr char digits[] = "0123456789abcdef";
      out += "\\u00";
      out += digits[c >> 4];
      out += digits[c & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

Json Json::read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot open " + path.string());
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  try {
    return Parser(text).document();
  } catch (const Error& error) {
    throw Error(path.string() + " is not JSON: " + error.what());
  }
}

bool Json::has(const std::string& key) const {
  const auto* object = std::get_if<Object>(&value_);
  if (object == nullptr) return false;
  for (const auto& [name, value] : *object)
    if (name == key) return true;
  return false;
}

const Json& Json::at(const std::string& key) const {
  if (const auto* object = std::get_if<Object>(&value_))
    for (const auto& [name, value] : *object)
      if (name == key) return value;
  throw Error("the JSON has no entry '" + key + "'; export the networks again with carina export --pipeline");
}

const Json::List& Json::list() const {
  if (const auto* found = std::get_if<List>(&value_)) return *found;
  throw Error("the JSON has " + dump() + " where a list should be");
}

double Json::number() const {
  if (const auto* found = std::get_if<double>(&value_)) return *found;
  return static_cast<double>(integer());
}

int64_t Json::integer() const {
  if (const auto* found = std::get_if<int64_t>(&value_)) return *found;
  throw Error("the JSON has " + dump() + " where a number should be");
}

const std::string& Json::text() const {
  if (const auto* found = std::get_if<std::string>(&value_)) return *found;
  throw Error("the JSON has " + dump() + " where text should be");
}

std::string Json::dump(int indent) const {
  const std::string pad(static_cast<size_t>(indent) + 2, ' '), close(static_cast<size_t>(indent), ' ');
  if (std::holds_alternative<std::nullptr_t>(value_)) return "null";
  if (const auto* flag = std::get_if<bool>(&value_)) return *flag ? "true" : "false";
  if (const auto* integer = std::get_if<int64_t>(&value_)) return std::to_string(*integer);
  if (const auto* number = std::get_if<double>(&value_)) {
    if (!std::isfinite(*number)) return "null";
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), *number).ptr;
    std::string out(digits.data(), end);
    return out.find_first_of(".e") == std::string::npos ? out + ".0" : out;
  }
  if (const auto* text = std::get_if<std::string>(&value_)) return quoted(*text);
  std::string out;
  if (const auto* items = std::get_if<List>(&value_)) {
    for (const Json& item : *items) out += (out.empty() ? "" : ", ") + item.dump(indent + 2);
    return "[" + out + "]";
  }
  for (const auto& [key, value] : std::get<Object>(value_))
    out += (out.empty() ? "\n" : ",\n") + pad + quoted(key) + ": " + value.dump(indent + 2);
  return out.empty() ? "{}" : "{" + out + "\n" + close + "}";
}

}  // namespace carina
