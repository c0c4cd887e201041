// Names and values that hold control characters, at every entrance: no message, table or log passes one on, and none can look like a message of
// heddle's.
#include <cstring>

#include "core/io/safetensors.h"
#include "kernels/api/check.h"
#include "tests/app/workplace.h"
#include "train/config/run_config.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::has;
using heddle::test::Result;
using heddle::test::Workplace;

// Colours, a bell, a line of its own, DEL, CSI in one character, text that runs backwards.
const std::string kBad = "x\x1b[31m\x07\r\nheddle: [forged] all is well\x7f\u009b2J\u202etxt";
const std::string kWorse = kBad + "\xff\x9b";

bool clean(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if ((c < 0x20 && c != '\n') || c == 0x7f || c == 0xff) return false;
    if (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) return false;
  }
  return !has(text, "\u202e") && !has(text, "\nheddle: [forged]") && text.rfind("heddle: [forged]", 0) != 0;
}

std::string quoted(const std::string& text) {
  return "'" + text + "'";
}

void check(const Result& r, const std::string& what) {
  INFO(what << ": code " << r.code << "\nstdout: " << r.out.substr(0, 2000) << "\nstderr: " << r.err.substr(0, 2000));
  CHECK(r.code < 127);
  CHECK(clean(r.out));
  CHECK(clean(r.err));
}

struct Words : Workplace {
  Words() {
    std::string text;
    for (int i = 0; i < 400; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
  }
};

const std::string kTrain =
    "pretrain --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --total-batch-tokens 32 --eval-every 0 --threads 1"
    " --no-tensorboard --no-progress --schedule constant --warmup 1 --save-every 2 --steps 4 ";

TEST_CASE("control characters in arguments, options, variables and configuration files") {
  const Words w;
  for (const std::string& bad : {kBad, kWorse}) {
    const std::string q = quoted(bad);
    for (const std::string& arguments : {q,
                                         "--" + q,
                                         q + " --help",
                                         "pretrain " + q,
                                         "pretrain --" + q + " 3",
                                         "pretrain --" + q + "=3",
                                         "pretrain --data " + q + " --out new --steps 1",
                                         "pretrain --config " + q,
                                         "pretrain --out " + q + " --resume must",
                                         kTrain + "--out a --data words.txt --tokenizer " + q,
                                         kTrain + "--out a --data words.txt --init-from " + q,
                                         "tokenize --input " + q + " --tokenizer bytes --out o",
                                         "tokenize --input words.txt --tokenizer " + q + " --out o",
                                         "tokenize --input words.txt --tokenizer bytes --out words.txt/" + q,
                                         "eval " + q,
                                         "eval " + q + " --data x",
                                         "eval words.txt --data " + q,
                                         "generate " + q + " --prompt a",
                                         "inspect " + q,
                                         "inspect " + q + ".bin",
                                         "inspect " + q + "/MANIFEST",
                                         "inspect words.txt --" + q,
                                         "bench " + q,
                                         "doctor " + q}) {
      check(w.heddle(arguments), arguments);
    }
    for (const auto& o : heddle::RunConfig::options()) {
      const std::string name(o.name);
      check(w.heddle("pretrain --" + name + " " + q + " --dry-run"), "--" + name);
      check(w.heddle("pretrain --print-config", heddle::environment_name(name) + "=" + q), "variable of " + name);
    }
    check(w.heddle("pretrain", "env HEDDLE_X=" + q), "a variable");
    for (const std::string& toml : std::vector<std::string>{
             "\"x\\u001b[31m\\nheddle: [forged] well\" = 1\n", "model = \"x\\u001b[31m\\nheddle: [forged] well\"\n", "lr = \"\\u009b\"\n",
             "sample-prompt = \"\\u001b[2J\\nheddle: [forged]\"\n", "out = \"x" + std::string("\x1b") + "\"\n", bad + " = 1\n"}) {
      w.write("c.toml", toml);
      check(w.heddle("pretrain --config c.toml --print-config"), toml);
      w.write(bad, toml);
      check(w.heddle("pretrain --config " + q + " --print-config"), "config file of that name: " + toml);
      fs::remove(w.path / bad);
    }
  }
}

TEST_CASE("control characters in names of files that are used, and in what files say") {
  const Words w;
  const std::string q = quoted(kBad);
  w.write(kBad + ".txt", w.read("words.txt"));
  check(w.heddle("tokenize --input " + q + ".txt --tokenizer bytes --document-separator blank-line --val-fraction 0.2 --out " + q), "tokenize");
  REQUIRE(fs::exists(w.path / kBad / "dataset.json"));
  check(w.heddle("inspect " + q), "inspect data");
  check(w.heddle("inspect " + q + " --verify"), "verify data");
  const Result train = w.heddle(kTrain + "--data " + q + "/'*_train_*.bin' --val " + q + "/'*_val_*.bin' --out " + q + "run --sample-prompt " + q +
                                " --sample-every 2");
  check(train, "pretrain");
  REQUIRE(train.code == 0);
  const Result again = w.heddle(kTrain + "--data " + q + "/'*_train_*.bin' --val " + q + "/'*_val_*.bin' --out " + q + "run --sample-prompt " + q +
                                " --sample-every 2 --steps 6");
  check(again, "resumed");
  REQUIRE(again.code == 0);
  const std::string run = kBad + "run";
  for (const std::string more : {"", " --verify", " --digest", " --details"}) check(w.heddle("inspect " + quoted(run) + more), "inspect run" + more);
  check(w.heddle("eval " + quoted(run) + " --data " + q + "/'*_val_*.bin'"), "eval");
  check(w.heddle("pretrain --out " + quoted(run) + " --seed 7 --data " + q + "/'*_train_*.bin'"), "another seed");
  // Damage, told with the names of where it is.
  const std::string checkpoint = run + "/ckpt/s6-i2";
  REQUIRE(fs::exists(w.path / checkpoint));
  w.write(checkpoint + "/" + kBad, "");
  check(w.heddle("inspect " + quoted(run) + " --verify"), "a file too many");
  check(w.heddle("eval " + quoted(run) + " --data " + q + "/'*_val_*.bin'"), "a file too many, passed over");
  fs::remove(w.path / checkpoint / kBad);
  fs::create_directory(w.path / run / "ckpt" / kBad);
  fs::create_directory(w.path / run / "quarantine" / kBad);
  check(w.heddle("inspect " + quoted(run) + " --details"), "foreign directories");
  check(w.heddle("pretrain --out " + quoted(run) + " --steps 8 --data " + q + "/'*_train_*.bin' --val " + q + "/'*_val_*.bin'"),
        "foreign directories");
  for (const auto& entry : fs::directory_iterator(w.path / kBad)) {
    const std::string name = entry.path().filename().string(), content = w.read(kBad + "/" + name);
    w.write(kBad + "/" + name, content.substr(0, content.size() / 2));
    check(w.heddle("inspect " + q + " --verify"), name + " cut");
    check(w.heddle("pretrain --out new --steps 1 --data " + q + "/'*_train_*.bin'"), name + " cut");
    w.write(kBad + "/" + name, content);
  }

  // Files of others.
  heddle::SafetensorsHeader layout = heddle::layout_safetensors({{kBad, heddle::FileType::U8, {1}}}, {{kBad, kBad}});
  w.write("a.safetensors", heddle::write_safetensors_header(layout) + "x");
  check(w.heddle("inspect a.safetensors"), "safetensors");
  CHECK(has(w.heddle("inspect a.safetensors").out, "x\\x1b[31m"));
  std::string json;
  heddle::append_json_string(json, kBad);
  for (const std::string& text : {"{" + json + ":1," + json + ":2}", "{\"format\":" + json + "}", "{\"model\":{\"type\":" + json + "}}", json, kWorse,
                                  "{\"" + kBad + "\":1}"}) {
    w.write("tokenizer.json", text);
    check(w.heddle("inspect tokenizer.json"), text);
    fs::create_directories(w.path / "d");
    w.write("d/dataset.json", text + " heddle-dataset");  // else it is taken for another program's, and not read
    check(w.heddle("inspect d"), text);
    w.write("lines.jsonl", text + "\n");
    check(w.heddle("tokenize --input lines.jsonl --tokenizer bytes --out lines"), text);
  }
}

}  // namespace
