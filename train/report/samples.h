// samples.txt: what the model wrote along the way, for people.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/io/own_file.h"

namespace heddle {

// One record a sample: "step 40, 123 bytes", a newline, the text as it is (it may hold anything, which is why its length stands in front), an empty
// line. Writes and is cut as metrics.jsonl is (train/report/metrics.h).
class SampleLog {
 public:
  SampleLog(const std::string& file, std::optional<uint64_t> resumed_step);

  void write(uint64_t step, std::string_view text);
  void cut_after(uint64_t step);

 private:
  AppendLog log_;
};

}  // namespace heddle
