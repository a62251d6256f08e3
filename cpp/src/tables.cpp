#include "tables.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <regex>
#include <sstream>

#include "error.hpp"

namespace carina {
namespace {

constexpr double kFarthestMm = 1e6;  // no patient reaches as far, and the index of a voxel there still fits an integer

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
  static const std::regex uid("[0-9]+(\\.[0-9]+)+");
  const std::string stem = path.stem().string();
  if (stem.size() > 64 || !std::regex_match(stem, uid)) return "";
  // Two dots make a version number or a date too, unless the UID was derived from a UUID (PS3.5 B.2).
  return std::count(stem.begin(), stem.end(), '.') >= 3 || stem.starts_with("2.25.") ? stem : "";
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
  std::string first;  // the series of the first row
  for (int64_t number = 2; std::getline(file, line); ++number) {
    const auto row = cells(line);
    if (row.empty()) continue;
    const std::string of = uid && *uid < row.size() ? row[*uid] : "";
    if (uid && !series_uid.empty() && of != series_uid) continue;
    if (out.empty()) first = of;
    if (series_uid.empty() && of != first)
      throw Error(csv.string() + " names several series, and the scan is not named by its own; rename it to UID.mhd");
    Vector3 position{};
    for (int i = 0; i < 3; ++i) {
      const std::string text = where[i] < row.size() ? row[where[i]] : "";
      const auto read = std::from_chars(text.data(), text.data() + text.size(), position[i]);
      if (read.ec != std::errc() || read.ptr != text.data() + text.size() || !(std::abs(position[i]) <= kFarthestMm))
        throw Error(csv.string() + " line " + std::to_string(number) + ": '" + text + "' is not a coordinate in mm");
    }
    out.push_back(position);
  }
  if (out.empty())
    throw Error(csv.string() + " has no candidates" + (series_uid.empty() ? "" : " of series " + series_uid));
  return out;
}

}  // namespace carina
