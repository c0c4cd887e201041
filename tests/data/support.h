// What the tests of data/ share: a scratch folder, random bytes and text, hand-made shards, errors by code.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/unicode.h"
#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle::test {

class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "heddle-data-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no scratch folder");
    path_ = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return concat(path_, "/", name); }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(*this / name, std::ios::binary) << content;
    return *this / name;
  }

 private:
  std::string path_;
};

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A file of HEDDLE_TEST_DATA (gpt2-vocab.bpe, gpt2-encoder.json, tinyshakespeare.txt); "" when there is none, and the test is to pass.
inline std::string test_data(const std::string& name) {
  const char* folder = std::getenv("HEDDLE_TEST_DATA");
  if (!folder) return "";
  const std::string path = std::string(folder) + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

inline std::string random_bytes(std::mt19937_64& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

inline void append_utf8(std::string& text, uint32_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    text += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// Words, digits, contractions, white space of all kinds, letters of many scripts (below U+11000: Unicode 14 and 15 agree there on the classes).
inline std::string random_text(std::mt19937_64& random, size_t characters, bool invalid) {
  static const std::vector<std::string> kinds = {" ",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\r\n",
                                                 "\t",
                                                 "\xC2\xA0",
                                                 "\xE3\x80\x80",
                                                 "'s",
                                                 "'S",
                                                 "'\xC5\xBF",
                                                 "'ll",
                                                 "'VE",
                                                 "'r",
                                                 "'",
                                                 "a",
                                                 "be",
                                                 "Zed",
                                                 "1",
                                                 "23",
                                                 "\xC2\xBD",
                                                 "\xD9\xA3",
                                                 "\xC3\xA9",
                                                 "\xE4\xB8\xAD",
                                                 "\xF0\x9F\x98\x80",
                                                 "-",
                                                 "!?",
                                                 "_",
                                                 "\xE2\x80\xA8",
                                                 "\xCC\x81",
                                                 "\xE1\xA0\x8E"};
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const uint64_t choice = random() % 100;
    if (choice < 80) {
      text += kinds[random() % kinds.size()];
    } else if (choice < 95 || !invalid) {
      uint32_t code = static_cast<uint32_t>(random() % (choice % 2 ? 0x3000 : 0x11000));
      if (code >= 0xD800 && code < 0xE000) code = 0xD7;
      append_utf8(text, code);
    } else {
      text += static_cast<char>(0x80 + random() % 0x80);
    }
  }
  return text;
}

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// A shard as bytes, so that the tests do not depend on ShardWriter.
inline std::string shard_bytes(const std::vector<int32_t>& tokens, bool wide = false) {
  std::string bytes;
  for (int i = 0; i < 256; ++i)
    put<int32_t>(bytes, i == 0 ? (wide ? 20240801 : 20240520) : i == 1 ? (wide ? 7 : 1) : i == 2 ? static_cast<int32_t>(tokens.size()) : 0);
  for (const int32_t token : tokens) wide ? put<uint32_t>(bytes, static_cast<uint32_t>(token)) : put<uint16_t>(bytes, static_cast<uint16_t>(token));
  return bytes;
}

struct OwnedBatch {
  std::vector<int32_t> tokens, targets, document_start;
  BatchView view;
  OwnedBatch(int64_t batch, int64_t seq)
      : tokens(static_cast<size_t>(batch * seq), -7),
        targets(tokens),
        document_start(tokens),
        view{batch, seq, tokens.data(), targets.data(), document_start.data()} {}
  bool operator==(const OwnedBatch& other) const {
    return tokens == other.tokens && targets == other.targets && document_start == other.document_start;
  }
};

// The message of the Error `run` throws, "" when it throws none; `code` is checked.
template <class Run>
std::string error_of(Run run, ExitCode code) {
  try {
    run();
  } catch (const Error& error) {
    CHECK(static_cast<int>(error.code()) == static_cast<int>(code));
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace heddle::test
