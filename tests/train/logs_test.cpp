#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/io/crc32c.h"
#include "tests/support/catch.h"
#include "tests/train/expect_error.h"
#include "train/report/bad_batches.h"
#include "train/report/metrics.h"
#include "train/report/samples.h"
#include "train/report/tensorboard.h"

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
  SECTION("a line that only looks like a record is no step") {
    const std::string strange = lines_up_to(2) + "{\"step\":9x}\n{\"step\":9\n{\"step\":}\n";
    std::ofstream(file, std::ios::binary) << strange << lines_up_to(20);
    MetricsLog log(file, 2);
    CHECK(content(file) == strange + lines_up_to(2));
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

TEST_CASE("what the last record of metrics.jsonl owes is filled in") {
  const TemporaryDirectory dir;
  const std::string file = (dir.path / "metrics.jsonl").string();
  CHECK(!last_record_owes(file, 2, "owed"));
  const auto line = [](uint64_t step, const std::vector<Metric>& metrics) { return metrics_line(step, metrics) + "\n"; };
  const std::string one = line(1, {{"owed", true}}), two = line(2, {{"loss", 1.5}, {"owed", true}});
  for (const auto& [text, owes] : std::vector<std::pair<std::string, bool>>{{"", false},
                                                                            {one, false},
                                                                            {two, true},
                                                                            {one + two, true},
                                                                            {two + one, false},
                                                                            {two + line(2, {{"val_loss", 1.0}}), false},
                                                                            {two + "{\"step\":3", false},
                                                                            {std::string(10000, '\n') + two, true},
                                                                            {std::string(10000, 'x'), false}}) {
    put(file, text);
    CAPTURE(text.substr(0, 100));
    CHECK(last_record_owes(file, 2, "owed") == owes);
    if (!owes) continue;
    MetricsLog(file, 2).pay(2, "owed", std::vector<Metric>{{"val_loss", 2.5}});
    CHECK(content(file) == text.substr(0, text.size() - two.size()) + line(2, {{"loss", 1.5}, {"val_loss", 2.5}}));
    CHECK(!last_record_owes(file, 2, "owed"));
  }
}

TEST_CASE("samples are cut back to the resumed step, whatever their text looks like") {
  const TemporaryDirectory dir;
  const std::string file = (dir.path / "samples.txt").string();
  const std::vector<std::string> texts = {
      "", "one\ntwo\n\n", "step 99, 4 bytes\nabcd\n\n", "step 1, 7 bytes", "\n\n\n", std::string(70000, 'x') + "\n"};
  std::vector<std::string> after = {""};
  {
    SampleLog log(file, std::nullopt);
    for (size_t i = 0; i < texts.size(); ++i) {
      log.write(10 * (i + 1), texts[i]);
      after.push_back(content(file));
      CHECK(after[i + 1] ==
            after[i] + "step " + std::to_string(10 * (i + 1)) + ", " + std::to_string(texts[i].size()) + " bytes\n" + texts[i] + "\n\n");
    }
  }
  const std::string whole = after.back();
  for (size_t i = 0; i <= texts.size(); ++i) {
    CAPTURE(i);
    put(file, whole);
    SampleLog log(file, 10 * i + 9);
    CHECK(content(file) == after[i]);
    log.write(10 * i + 10, "next");
    log.cut_after(10 * i + 9);  // as a roll-back does
    CHECK(content(file) == after[i]);
  }
  // Torn anywhere, the file goes back to the last whole record.
  for (size_t length = 0; length < whole.size(); length += length < after[5].size() + 30 ? 1 : 997) {
    put(file, whole.substr(0, length));
    SampleLog log(file, 1000);
    size_t kept = 0;
    while (after[kept + 1].size() <= length) ++kept;
    if (content(file) != after[kept]) FAIL_CHECK("torn at " << length << ": " << content(file).size() << " bytes kept, not " << after[kept].size());
  }
  // Records of early versions have no length; what a later one of them begins goes all the same, and so does a later one behind them.
  const std::string early = "step 3\nabc\n\nstep 6\nstep by step\n\n";
  for (const auto& [step, kept] :
       std::vector<std::pair<uint64_t, std::string>>{{2, ""}, {5, early.substr(0, 12)}, {6, early}, {9, early}, {10, early + after[1]}}) {
    put(file, early + whole);
    SampleLog(file, step);
    CAPTURE(step);
    CHECK(content(file) == kept);
  }
  put(file, "a note\n" + whole);
  SampleLog(file, 10);
  CHECK(content(file) == "a note\n" + after[1]);
  SampleLog(file, std::nullopt);
  CHECK(content(file).empty());
}

// What a file-size limit leaves of this process's writes, with a real short write at its end, as on a disk that is full for a while.
struct FileSizeLimit {
  rlimit before{};
  void (*handler)(int);
  explicit FileSizeLimit(uint64_t bytes) : handler(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before);
    const rlimit limit{bytes, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, handler);
  }
};

// Whole records of an event file, or -1 when it does not end with one.
int whole_records(const std::string& bytes) {
  int found = 0;
  for (size_t at = 0; at < bytes.size(); ++found) {
    uint64_t length = 0;
    if (bytes.size() - at < 12) return -1;
    std::memcpy(&length, bytes.data() + at, 8);
    if (length > bytes.size() - at - 12 || bytes.size() - at - 12 - length < 4) return -1;
    if (tensorboard_record(std::string_view(bytes).substr(at + 12, length)) != std::string_view(bytes).substr(at, 16 + length)) return -1;
    at += 16 + length;
  }
  return found;
}

TEST_CASE("a disk that is full for a while costs every log the records of that while, and leaves nothing torn") {
  const TemporaryDirectory dir;
  const std::string metrics_file = (dir.path / "metrics.jsonl").string(), samples_file = (dir.path / "samples.txt").string();
  MetricsLog metrics(metrics_file, std::nullopt);
  SampleLog samples(samples_file, std::nullopt);
  TensorBoardLog events(dir.path, std::nullopt);
  const auto write = [&](uint64_t step) {
    metrics.write(step, {{"loss", 1.0 / static_cast<double>(step)}});
    samples.write(step, "some text");
    events.scalar(step, "loss", 1.0);
  };
  write(1);
  const std::string first = content(metrics_file), first_sample = content(samples_file);
  REQUIRE(whole_records(content(events.file())) == 2);
  for (int torn = 0; torn < 12; ++torn) {  // so many bytes of the next record still find room
    CAPTURE(torn);
    for (const std::string& file : {metrics_file, samples_file, events.file().string()}) {
      const std::string before = content(file);
      const FileSizeLimit full(before.size() + static_cast<size_t>(torn));
      for (int i = 0; i < 3; ++i) write(2);
      CHECK(content(file) == before);
    }
  }
  write(3);
  std::istringstream lines(content(metrics_file));
  for (std::string line; std::getline(lines, line);) CHECK(nlohmann::json::accept(line));
  CHECK(content(metrics_file).ends_with("\n{\"step\":3,\"loss\":0.3333333333333333}\n"));
  CHECK(content(samples_file).ends_with("\n\nstep 3, 9 bytes\nsome text\n\n"));
  CHECK(whole_records(content(events.file())) > 2);
  CHECK(metrics.lost_lines() >= 36);
  samples.cut_after(1);
  metrics.cut_after(1);
  CHECK(content(metrics_file) == first);
  CHECK(content(samples_file) == first_sample);
  {
    const BadBatch batch{.step = 7, .first_sample = 100, .count = 10, .file = "a.bin", .reason = "loss nan"};
    BadBatchLedger ledger(dir.path / "bad_batches.jsonl");
    ledger.add(batch);
    const std::string before = content(dir.path / "bad_batches.jsonl");
    const FileSizeLimit full(before.size() + 5);
    BadBatch next = batch;
    next.step = 8;
    expect_error([&] { ledger.add(next); }, ExitCode::io, {"bad_batches.jsonl", "File too large"});
    CHECK(content(dir.path / "bad_batches.jsonl") == before);
  }
}

TEST_CASE("an event file that found no room for its version has it in front all the same") {
  const TemporaryDirectory dir;
  fs::path file;
  {
    std::optional<FileSizeLimit> full(0);
    TensorBoardLog log(dir.path, 4);
    log.scalar(5, "loss", 1.0);
    file = log.file();
    full.reset();
    CHECK(content(file).empty());
    log.scalar(6, "loss", 1.0);
  }
  CHECK(whole_records(content(file)) == 2);
  CHECK(content(file).find("brain.Event:2") != std::string::npos);
}

// The same for every file: what others put under its name is neither read nor written through, and nothing waits.
TEST_CASE("a log whose name is a link, a FIFO or a folder is refused, and what a link leads to is left alone") {
  const TemporaryDirectory dir;
  const std::string victim = (dir.path / "victim").string();
  put(victim, "precious\n");
  const std::vector<std::pair<std::string, void (*)(const std::string&)>> logs = {
      {"metrics.jsonl", [](const std::string& file) { MetricsLog log(file, std::nullopt); }},
      {"metrics.jsonl", [](const std::string& file) { MetricsLog log(file, 3); }},
      {"samples.txt", [](const std::string& file) { SampleLog log(file, std::nullopt); }},
      {"samples.txt", [](const std::string& file) { SampleLog log(file, 3); }},
      {"bad_batches.jsonl", [](const std::string& file) { BadBatchLedger ledger(file); }}};
  for (const auto& [name, open] : logs) {
    CAPTURE(name);
    const std::string file = (dir.path / name).string();
    REQUIRE(::symlink(victim.c_str(), file.c_str()) == 0);
    expect_error([&, open = open] { open(file); }, ExitCode::bad_data, {file, "symbolic link", "move it away"});
    REQUIRE(::unlink(file.c_str()) == 0);
    REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
    ::alarm(60);  // a FIFO that is waited for ends this test, not the day
    expect_error([&, open = open] { open(file); }, ExitCode::bad_data, {file, "not a regular file"});
    ::alarm(0);
    REQUIRE(::unlink(file.c_str()) == 0);
    REQUIRE(::mkdir(file.c_str(), 0700) == 0);
    expect_error([&, open = open] { open(file); }, ExitCode::bad_data, {file, "not a regular file"});
    REQUIRE(::rmdir(file.c_str()) == 0);
  }
  BadBatchLedger ledger(dir.path / "bad_batches.jsonl");
  REQUIRE(::symlink(victim.c_str(), (dir.path / "bad_batches.jsonl").c_str()) == 0);
  expect_error([&] { ledger.add({.step = 1}); }, ExitCode::bad_data, {"symbolic link"});
  CHECK(content(victim) == "precious\n");
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

TEST_CASE("a ledger of bad batches is read up to its limit and not beyond") {
  const TemporaryDirectory dir;
  const std::filesystem::path file = dir.path / "bad_batches.jsonl";
  std::ofstream(file) << "";
  std::filesystem::resize_file(file, size_t{64} << 20);  // one torn line
  CHECK(BadBatchLedger(file).entries().empty());
  std::filesystem::resize_file(file, (size_t{64} << 20) + 1);
  expect_error([&] { const BadBatchLedger ledger(file); }, ExitCode::bad_data, {"bad_batches.jsonl", "more than 67108864 bytes"});
}

}  // namespace
}  // namespace heddle
