#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>
#include <numbers>
#include <numeric>

#include "error.hpp"

namespace carina {
namespace {

constexpr auto kNotice = "For research use only. Not for diagnosis.";
constexpr auto kMethod = "maximum over the findings of p_nodule x p_malignant";

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&time, &utc);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S+00:00", &utc);
  return text.data();
}

Json unless_empty(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json input_summary(const Input& input) {
  return Json::Object{{"path", input.path.string()},
                      {"format", "metaimage"},
                      {"series_uid", unless_empty(input.series_uid)},
                      {"study_uid", nullptr},
                      {"frame_of_reference_uid", nullptr},
                      {"shape_zyx", Json::list(input.ct.geometry.shape)},
                      {"spacing_zyx_mm", Json::list(input.ct.geometry.spacing())},
                      {"lung_litres", input.lung_litres}};
}

std::string case_id(const Input& input) {
  return input.series_uid.empty() ? input.path.stem().string() : input.series_uid;
}

Json::List model_infos(const std::vector<Model>& models) {
  Json::List out;
  for (const Model& model : models)
    out.push_back(Json::Object{{"role", model.role},
                               {"name", model.card->at("name")},
                               {"sha256", model.card->at("sha256")},
                               {"runtime", model.runtime},
                               {"summary", model.card->at("summary")}});
  return out;
}

Json timings(const Seconds& seconds) {
  Json::Object out;
  for (const auto& [stage, time] : seconds) out.emplace_back(stage, std::round(1000 * time) / 1000);
  return out;
}

}  // namespace

Json report(const Input& input, const std::vector<Candidate>& candidates,
            const std::vector<double>& classification, const Constants& constants, const std::vector<Model>& models,
            const Seconds& seconds, const std::string& version) {
  std::vector<double> p(candidates.size());
  for (size_t i = 0; i < p.size(); ++i) p[i] = constants.p_nodule(candidates[i].score, classification[i]);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  Json::List findings;
  double worst = -1;
  int64_t driver = 0;
  for (const size_t i : order) {
    if (p[i] < constants.nodule_threshold || static_cast<int64_t>(findings.size()) >= constants.most_findings) break;
    const Candidate& candidate = candidates[i];
    const auto id = static_cast<int64_t>(findings.size()) + 1;
    const double diameter = std::cbrt(6 * candidate.volume_mm3 / std::numbers::pi);
    const double p_malignant = constants.p_malignant(diameter);
    const Vector3 index = input.ct.geometry.to_zyx(candidate.center_lps);
    const int64_t slice =
        std::clamp<int64_t>(std::llround(std::nearbyint(index[0])), 0, input.ct.geometry.shape[0] - 1);
    if (p[i] * p_malignant > worst) {
      worst = p[i] * p_malignant;
      driver = id;
    }
    findings.push_back(Json::Object{{"id", id},
                                    {"center_lps", Json::list(candidate.center_lps)},
                                    {"center_zyx", Json::list(index)},
                                    {"diameter_mm", diameter},
                                    {"volume_mm3", candidate.volume_mm3},
                                    {"mean_hu", candidate.mean_hu},
                                    {"p_nodule", p[i]},
                                    {"p_malignant", p_malignant},
                                    {"slice_index", slice},
                                    {"segmentation_score", candidate.score},
                                    {"classification_score", classification[i]}});
  }
  Json::List warnings(input.ct.warnings.begin(), input.ct.warnings.end());
  const auto passing = std::count_if(p.begin(), p.end(), [&](double one) { return one >= constants.nodule_threshold; });
  if (passing > static_cast<int64_t>(findings.size()))
    warnings.emplace_back(std::to_string(passing) + " findings; only the " + std::to_string(constants.most_findings) +
                          " most probable are listed");
  warnings.emplace_back("made by carina-run: axes, corrected volumes and the mask of findings are not computed");
  Json::Object patient{{"p_malignant", findings.empty() ? Json(nullptr) : Json(worst)},
                       {"finding_id", findings.empty() ? Json(nullptr) : Json(driver)},
                       {"method", kMethod}};
  return Json::Object{{"case_id", case_id(input)},
                      {"input", input_summary(input)},
                      {"findings", findings},
                      {"patient", patient},
                      {"threshold", constants.nodule_threshold},
                      {"models", model_infos(models)},
                      {"seconds", timings(seconds)},
                      {"warnings", warnings},
                      {"carina_version", version},
                      {"created", now()},
                      {"notice", kNotice},
                      {"schema_version", "1.0"}};
}

Json classified(const Input& input, const std::vector<Vector3>& centers_lps,
                const std::vector<double>& classification, const std::vector<Model>& models, const Seconds& seconds,
                const std::string& version) {
  Json::List rows;
  for (size_t i = 0; i < centers_lps.size(); ++i)
    rows.push_back(Json::Object{{"center_lps", Json::list(centers_lps[i])},
                                {"center_zyx", Json::list(input.ct.geometry.to_zyx(centers_lps[i]))},
                                {"classification_score", classification[i]}});
  return Json::Object{{"case_id", case_id(input)},
                      {"input", input_summary(input)},
                      {"candidates", rows},
                      {"models", model_infos(models)},
                      {"seconds", timings(seconds)},
                      {"warnings", Json::List(input.ct.warnings.begin(), input.ct.warnings.end())},
                      {"carina_version", version},
                      {"created", now()},
                      {"notice", kNotice},
                      {"schema_version", "1.0"}};
}

void write_json(const Json& json, const std::filesystem::path& path) {
  const std::filesystem::path part = path.string() + ".part";
  {
    std::ofstream file(part, std::ios::binary);
    file << json.dump() << '\n';
    if (!file.flush()) throw Error("cannot write " + path.string());
  }
  std::error_code failed;
  std::filesystem::rename(part, path, failed);
  if (failed) throw Error("cannot write " + path.string() + ": " + failed.message());
}

}  // namespace carina
