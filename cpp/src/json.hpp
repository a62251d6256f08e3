// JSON, read and written: what the manifest, the constants and the report need of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace carina {

class Json {
 public:
  using List = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order of writing

  Json() : value_(nullptr) {}
  Json(std::nullptr_t) : value_(nullptr) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<int64_t>(value)) {}
  Json(int64_t value) : value_(value) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(List value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  template <typename T, size_t N>
  static Json list(const std::array<T, N>& values) {
    return List(values.begin(), values.end());
  }

  // Throws Error naming `path`: no such file, or not JSON.
  static Json read(const std::filesystem::path& path);

  // Throw Error: absent, or of another type.
  [[nodiscard]] const Json& at(const std::string& key) const;
  [[nodiscard]] const List& list() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] int64_t integer() const;
  [[nodiscard]] const std::string& text() const;
  [[nodiscard]] bool has(const std::string& key) const;
  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }

  [[nodiscard]] std::string dump(int indent = 0) const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, List, Object> value_;
};

}  // namespace carina
