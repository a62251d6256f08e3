// What is written: the report in the JSON form of carina.findings.Report (schema 1.0).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "image.hpp"
#include "json.hpp"
#include "network.hpp"
#include "stages.hpp"

namespace carina {

struct Input {
  std::filesystem::path path;
  std::string series_uid;  // empty: unknown
  const Ct& ct;
  double lung_litres;
};

struct Model {
  std::string role;
  const Json* card;
  std::string runtime;
};

using Seconds = std::vector<std::pair<std::string, double>>;

// The report of a whole run. `classification` belongs to the candidates, in their order.
Json report(const Input& input, const std::vector<Candidate>& candidates,
            const std::vector<double>& classification, const Constants& constants, const std::vector<Model>& models,
            const Seconds& seconds, const std::string& version);

// The answer of the 3-D network alone at given positions.
Json classified(const Input& input, const std::vector<Vector3>& centers_lps,
                const std::vector<double>& classification, const std::vector<Model>& models, const Seconds& seconds,
                const std::string& version);

// Written under another name first, so that the file is there whole or not at all.
void write_json(const Json& json, const std::filesystem::path& path);

}  // namespace carina
