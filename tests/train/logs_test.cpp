#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/io/crc32c.h"
#include "tests/support/catch.h"
#include "tests/train/expect_error.h"
#include "train/bad_batches.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/tensorboard.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

struct TemporaryDirectory {
  fs::path path;
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "heddle-logs-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

void put(const fs::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
    out += two;
  }
  return out;
}

TEST_CASE("a metrics line is one JSON object whatever the values") {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const Metric metrics[] = {{"loss", 2.5},     {"grad_norm", std::nan("")}, {"lr", kInf},    {"tokens", int64_t{1} << 60},
                            {"applied", true}, {"note", "a\"b\n"},          {"tiny", 5e-324}};
  const std::string line = metrics_line(12, metrics);
  CHECK(line.find('\n') == std::string::npos);
  const auto json = nlohmann::json::parse(line);
  CHECK(json["step"] == 12);
  CHECK(json["loss"] == 2.5);
  CHECK(json["grad_norm"].is_null());
  CHECK(json["lr"].is_null());
  CHECK(json["tokens"].get<int64_t>() == int64_t{1} << 60);
  CHECK(json["applied"] == true);
  CHECK(json["note"] == "a\"b\n");
  CHECK(json["tiny"] == 5e-324);
}

TEST_CASE("metrics are cut back to the resumed step") {
  const TemporaryDirectory dir;
  const fs::path file = dir.path / "metrics.jsonl";
  {
    MetricsLog log(file, std::nullopt);
    for (uint64_t step = 1; step <= 20; ++step) {
      log.write(step, {{"loss", 1.0 / static_cast<double>(step)}});
      if (step % 5 == 0) log.write(step, {{"val_loss", 0.5}});
      CHECK(content(file).back() == '\n');  // on the disk before the next step
    }
  }
  const std::string whole = content(file);
  const auto lines_up_to = [&](uint64_t step) { return whole.substr(0, whole.find("{\"step\":" + std::to_string(step + 1) + ",")); };
  SECTION("later lines go") {
    MetricsLog log(file, 10);
    CHECK(content(file) == lines_up_to(10));
    log.write(11, {{"loss", 9.0}});
    CHECK(content(file) == lines_up_to(10) + "{\"step\":11,\"loss\":9}\n");
  }
  SECTION("everything stays when nothing is later") {
    MetricsLog log(file, 20);
    CHECK(content(file) == whole);
  }
  SECTION("a torn last line goes, even of an earlier step") {
    for (const char* torn : {"{\"step\":1,\"loss\":2.", "{", "{\"step\":20,\"loss\":1}"}) {
      put(file, whole + torn);
      MetricsLog log(file, 20);
      CHECK(content(file) == whole);
    }
  }
  SECTION("lines of other origin stay in front of the cut") {
    put(file, "# a note\n{\"other\":1}\n" + whole);
    MetricsLog log(file, 5);
    CHECK(content(file) == "# a note\n{\"other\":1}\n" + lines_up_to(5));
  }
  SECTION("what follows a later line belongs to it") {
    put(file, whole + "{\"step\":3,\"loss\":1}\n");
    MetricsLog log(file, 10);
    CHECK(content(file) == lines_up_to(10));
  }
  SECTION("step 1 is not step 10") {
    MetricsLog log(file, 1);
    CHECK(content(file) == lines_up_to(1));
  }
  SECTION("a new run starts empty") {
    MetricsLog log(file, std::nullopt);
    CHECK(content(file).empty());
  }
  SECTION("a roll-back cuts an open log") {
    MetricsLog log(file, 20);
    log.cut_after(7);
    log.write(8, {{"loss", 3.0}});
    CHECK(content(file) == lines_up_to(7) + "{\"step\":8,\"loss\":3}\n");
  }
  expect_error([&] { MetricsLog log(dir.path / "missing" / "metrics.jsonl", 1); }, ExitCode::io, {"metrics.jsonl"});
}

TEST_CASE("a log on a full disk loses lines and nothing else") {
  if (!fs::exists("/dev/full")) return;
  MetricsLog log("/dev/full", uint64_t{0});
  log.write(1, {{"loss", 1.0}});
  log.write(2, {{"loss", 1.0}});
  CHECK(log.lost_lines() == 2);
}

// Records decoded with protoc 3.21 against TensorFlow's event.proto; wall_time 1.0.
TEST_CASE("TensorBoard records are those of the format, byte for byte") {
  CHECK(hex(tensorboard_record(tensorboard_version_event(1.0))) ==
        "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a");
  CHECK(hex(tensorboard_record(tensorboard_scalar_event(1.0, 5, "loss", 2.5f))) ==
        "1a00000000000000129bd82d09000000000000f03f10052a0d0a0b0a046c6f737315000020401f0ddde3");
  CHECK(hex(tensorboard_record(tensorboard_text_event(1.0, 6, "note", "hi"))) ==
        "2d000000000000003c418afb09000000000000f03f10062a200a1e0a046e6f74654a080a060a0474657874420c0807120412020801420268693c7d1acd");
  CHECK(hex(tensorboard_restart_event(1.0, 300)) == "09000000000000f03f10ac023a020801");
}

TEST_CASE("an event file is a chain of whole records, and a resumed run opens a new one") {
  const TemporaryDirectory dir;
  fs::path first;
  {
    TensorBoardLog log(dir.path, std::nullopt);
    first = log.file();
    log.scalar(1, "loss", 2.0);
    log.text(1, "config", "seed = 1");
    CHECK(first.filename().string().rfind("events.out.tfevents.", 0) == 0);
  }
  const std::string before = content(first);
  TensorBoardLog log(dir.path, 1);
  log.scalar(2, "loss", std::nan(""));
  CHECK(log.file() != first);
  CHECK(content(first) == before);
  for (const auto& [file, records] : {std::pair{first, 3}, std::pair{log.file(), 3}}) {
    const std::string bytes = content(file);
    size_t at = 0;
    int found = 0;
    const auto masked = [](const char* data, size_t size) {
      const uint32_t crc = crc32c(data, size);
      return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
    };
    while (at < bytes.size()) {
      uint64_t length = 0;
      uint32_t crc = 0;
      REQUIRE(bytes.size() - at >= 12);
      std::memcpy(&length, bytes.data() + at, 8);
      std::memcpy(&crc, bytes.data() + at + 8, 4);
      CHECK(crc == masked(bytes.data() + at, 8));
      REQUIRE(bytes.size() - at >= 16 + length);
      std::memcpy(&crc, bytes.data() + at + 12 + length, 4);
      CHECK(crc == masked(bytes.data() + at + 12, length));
      at += 16 + length;
      ++found;
    }
    CHECK(found == records);
  }
}

TEST_CASE("the step line is that of llm.c") {
  StepLine line{.step = 12,
                .steps = 500,
                .loss = 5.123456,
                .loss_z = 0.12,
                .grad_norm = 1.2345,
                .norm_z = -0.4,
                .lr = 3e-4,
                .seconds = 0.12055,
                .mfu = 0.412,
                .precision = "bf16",
                .tokens_per_second = 67953.4};
  CHECK(step_text(line) == "step   12/500 | loss 5.123456 (+0.12z)| norm 1.2345 (-0.40z)| lr 3.00e-04 | 120.55 ms | 41.2% bf16 MFU | 67953 tok/s");
  line.mfu = -1;
  line.loss_z = std::nan("");
  line.note = "update withheld";
  CHECK(step_text(line) ==
        "step   12/500 | loss 5.123456 (n/a z)| norm 1.2345 (-0.40z)| lr 3.00e-04 | 120.55 ms | n/a bf16 MFU | 67953 tok/s | update withheld");
  line.loss = 1e300;  // hundreds of digits: shortened, never overrun
  CHECK(step_text(line).size() < 2000);
}

TEST_CASE("amounts and times for people") {
  CHECK(duration_text(59.6) == "1:00");
  CHECK(duration_text(3723) == "1:02:03");
  CHECK(duration_text(90000) == "1d 1:00:00");
  CHECK(duration_text(std::nan("")) == "?");
  CHECK(duration_text(-1) == "?");
  CHECK(bytes_text(12) == "12 B");
  CHECK(bytes_text(1.5 * 1024 * 1024 * 1024) == "1.50 GiB");
  CHECK(amount_text(124439808) == "124.44 M");
  CHECK(amount_text(512) == "512");
}

TEST_CASE("the token rate leaves the first step out and has no bias at its start") {
  RateMeter meter;
  CHECK(meter.tokens_per_second() == 0);
  meter.add(1000, 100);  // page faults and warm-up
  CHECK(meter.tokens_per_second() == 0);
  meter.add(1000, 0.5);
  CHECK_THAT(meter.tokens_per_second(), Catch::Matchers::WithinRel(2000.0, 1e-12));
  CHECK_THAT(meter.seconds_per_step(), Catch::Matchers::WithinRel(0.5, 1e-12));
  for (int i = 0; i < 500; ++i) meter.add(1000, 0.25);
  CHECK_THAT(meter.tokens_per_second(), Catch::Matchers::WithinRel(4000.0, 1e-6));
}

TEST_CASE("a console that is no terminal gets plain lines, and no rank but the first prints") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  {
    Console console({.handle = ends[1]});
    CHECK(!console.has_bar());
    console.progress("step", 1, 10, 0.5);
    console.line("hello");
    console.warn("careful");
    Console silent({.enabled = false, .handle = ends[1]});
    silent.line("never");
  }
  ::close(ends[1]);
  char buffer[256];
  const ssize_t n = ::read(ends[0], buffer, sizeof buffer);
  ::close(ends[0]);
  CHECK(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(n, 0))) == "hello\nwarning: careful\n");
}

TEST_CASE("the start table shows values and where they come from") {
  RunConfig config;
  config.set("lr", "1e-3", Source::flag, "--lr");
  config.dim = 768;
  config.mark_derived("dim", "model gpt2");
  const std::string table = table_text("configuration", config_rows(config));
  CHECK(table.find("  lr ") != std::string::npos);
  CHECK(table.find("--lr\n") != std::string::npos);
  CHECK(table.find("from model gpt2\n") != std::string::npos);
  CHECK(table.find("kv-heads") == std::string::npos);  // nobody set it
  CHECK(table.find("beta1") == std::string::npos);     // it is at its default
}

TEST_CASE("the ledger of bad batches survives restarts and torn writes") {
  const TemporaryDirectory dir;
  const fs::path file = dir.path / "bad_batches.jsonl";
  const BadBatch withheld{.step = 7, .first_sample = 100, .count = 10, .file = "a\"b.bin", .offset = 1u << 31, .reason = "loss nan", .skip = false};
  const BadBatch skipped{.step = 9, .first_sample = 200, .count = 50, .file = "c.bin", .offset = 3, .reason = "spike", .skip = true};
  {
    BadBatchLedger ledger(file);
    CHECK(ledger.entries().empty());
    ledger.add(withheld);
    ledger.add(skipped);
  }
  CHECK(BadBatchLedger(file).entries() == std::vector<BadBatch>{withheld, skipped});
  const std::string whole = content(file);

  SECTION("a torn line is dropped and overwritten") {
    put(file, whole + "{\"step\":12,\"fir");
    BadBatchLedger ledger(file);
    CHECK(ledger.entries().size() == 2);
    BadBatch later = withheld;
    later.step = 12;
    ledger.add(later);
    CHECK(BadBatchLedger(file).entries() == std::vector<BadBatch>{withheld, skipped, later});
  }
  SECTION("what a killed job finds bad again is listed once; the roll-backs it made are counted, not what people listed") {
    BadBatchLedger ledger(file);
    ledger.add(withheld);
    ledger.add(skipped);
    CHECK(content(file) == whole);
    CHECK(ledger.rollbacks() == 1);
    ledger.add({.step = 0, .first_sample = 900, .count = 5, .reason = "by hand", .skip = true});
    CHECK(BadBatchLedger(file).rollbacks() == 1);
  }
  SECTION("damage inside is refused by file and line") {
    for (const char* bad :
         {"{}", "[]", "x", "{\"step\":-1}", "{\"step\":1,\"step\":2}",
          "{\"step\":1,\"first_sample\":18446744073709551615,\"count\":2,\"file\":\"\",\"offset\":0,\"reason\":\"\",\"skip\":true}"}) {
      INFO(bad);
      put(file, whole + bad + "\n");
      expect_error([&] { BadBatchLedger ledger(file); }, ExitCode::bad_data, {"bad_batches.jsonl:3"});
    }
  }
  SECTION("positions move past data to be skipped, never past withheld steps") {
    BadBatchLedger ledger(file);
    CHECK(ledger.next_clean(95, 10) == 95);
    CHECK(ledger.next_clean(190, 10) == 190);
    CHECK(ledger.next_clean(191, 10) == 250);
    CHECK(ledger.next_clean(249, 1) == 250);
    CHECK(ledger.next_clean(250, 10) == 250);
    ledger.add({.step = 10, .first_sample = 255, .count = 5, .skip = true});
    CHECK(ledger.next_clean(200, 10) == 260);  // one range after another
  }
}

}  // namespace
}  // namespace heddle
