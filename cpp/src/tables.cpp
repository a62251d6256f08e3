#include "tables.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>

#include "error.hpp"

namespace carina {
namespace {

std::vector<std::string> cells(std::string line) {
  if (!line.empty() && line.back() == '\r') line.pop_back();
  std::vector<std::string> out;
  std::istringstream text(line);
  for (std::string cell; std::getline(text, cell, ',');) out.push_back(cell);
  return out;
}

std::optional<size_t> column(const std::vector<std::string>& header, const std::string& name) {
  const auto found = std::find(header.begin(), header.end(), name);
  return found == header.end() ? std::nullopt : std::optional<size_t>(found - header.begin());
}

}  // namespace

std::string series_uid_of(const std::filesystem::path& path) {
  const std::string stem = path.stem().string();
  const bool digits = stem.find_first_not_of("0123456789.") == std::string::npos;
  return digits && stem.size() <= 64 && std::count(stem.begin(), stem.end(), '.') >= 3 &&
                 stem.find("..") == std::string::npos
             ? stem
             : "";
}

std::vector<Vector3> read_candidates(const std::filesystem::path& csv, const std::string& series_uid) {
  std::ifstream file(csv);
  std::string line;
  if (!file || !std::getline(file, line)) throw Error("cannot read the table " + csv.string());
  if (line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
  const auto header = cells(line);
  const auto uid = column(header, "seriesuid");
  std::array<size_t, 3> where{};
  for (int i = 0; i < 3; ++i) {
    const std::string name = std::string("coord") + "XYZ"[i];
    const auto found = column(header, name);
    if (!found) throw Error(csv.string() + " has no column " + name + "; expected seriesuid,coordX,coordY,coordZ");
    where[i] = *found;
  }
  std::vector<Vector3> out;
  for (int64_t number = 2; std::getline(file, line); ++number) {
    const auto row = cells(line);
    if (row.empty()) continue;
    if (uid && !series_uid.empty() && (row.size() <= *uid || row[*uid] != series_uid)) continue;
    Vector3 position{};
    for (int i = 0; i < 3; ++i) {
      const std::string text = where[i] < row.size() ? row[where[i]] : "";
      const auto read = std::from_chars(text.data(), text.data() + text.size(), position[i]);
      if (read.ec != std::errc() || read.ptr != text.data() + text.size())
        throw Error(csv.string() + " line " + std::to_string(number) + ": '" + text + "' is not a coordinate in mm");
    }
    out.push_back(position);
  }
  if (out.empty())
    throw Error(csv.string() + " has no candidates" + (series_uid.empty() ? "" : " of series " + series_uid));
  return out;
}

}  // namespace carina
