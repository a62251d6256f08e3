// Candidate tables in LUNA16's form: seriesuid,coordX,coordY,coordZ,...
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "geometry.hpp"

namespace carina {

// Positions (mm, LPS) of one series, in the file's order; of all rows where the table or the scan names no series.
// Throws Error: not such a table, none of its rows belongs to the series, or several are named for a scan without UID.
std::vector<Vector3> read_candidates(const std::filesystem::path& csv, const std::string& series_uid);

// The series UID that a file is named by; empty where its name is something else.
std::string series_uid_of(const std::filesystem::path& path);

}  // namespace carina
