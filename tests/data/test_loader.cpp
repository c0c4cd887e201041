#include <map>
#include <set>
#include <thread>

#include "data/file.h"
#include "data/permutation.h"
#include "data/shard.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

constexpr int32_t kEot = 99;

// Documents of random length over [0, 98], each after its end-of-text token.
std::vector<int32_t> random_documents(std::mt19937_64& random, size_t size, bool prepend = true) {
  std::vector<int32_t> tokens;
  while (tokens.size() < size) {
    if (prepend) tokens.push_back(kEot);
    for (uint64_t n = random() % 30; n > 0; --n) tokens.push_back(static_cast<int32_t>(random() % 99));
    if (!prepend) tokens.push_back(kEot);
  }
  tokens.resize(size);
  return tokens;
}

LoaderOptions options_for(const std::string& glob, int64_t seq) {
  LoaderOptions options;
  options.shards = {glob};
  options.seq = seq;
  options.seed = 42;
  options.vocab = 100;
  options.eot = kEot;
  return options;
}

}  // namespace

TEST_CASE("a permutation is a bijection, keyed by seed and epoch", "[loader]") {
  for (const uint64_t size : {1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1000, 4097}) {
    const Permutation order(size, 7, 3);
    std::vector<bool> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t at = order(i);
      REQUIRE(at < size);
      REQUIRE(!seen[at]);
      seen[at] = true;
    }
  }
  const auto differing = [](const Permutation& a, const Permutation& b) {
    int count = 0;
    for (uint64_t i = 0; i < 1000; ++i) count += a(i) != b(i);
    return count;
  };
  CHECK(differing(Permutation(1000, 7, 0), Permutation(1000, 7, 1)) > 950);
  CHECK(differing(Permutation(1000, 7, 0), Permutation(1000, 8, 0)) > 950);
  CHECK(differing(Permutation(1000, 7, 0), Permutation(1000, 7, 0)) == 0);
  // A large domain, sampled: no two of 100,000 places collide.
  const Permutation large(uint64_t{1} << 40, 1, 0);
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 100000; ++i) seen.insert(large(i));
  CHECK(seen.size() == 100000);
}

TEST_CASE("a permutation names a size or an index out of its bounds, and takes those at the bounds", "[loader]") {
  constexpr uint64_t kMost = uint64_t{1} << 62;
  const auto message = [](uint64_t size, uint64_t index) {
    try {
      const uint64_t at = Permutation(size, 3, 0)(index);
      return concat(at < size ? "below " : "not below ", size);
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  CHECK(message(0, 0).find("size 0 is not in [1, 2^62]") != std::string::npos);
  CHECK(message(kMost + 1, 0).find("size 4611686018427387905 is not in [1, 2^62]") != std::string::npos);
  CHECK(message(~uint64_t{0}, 0).find("is not in [1, 2^62]") != std::string::npos);
  for (const uint64_t size : {uint64_t{1}, uint64_t{2}, uint64_t{10}, uint64_t{64}, uint64_t{65}, kMost - 1, kMost}) {
    CHECK(message(size, 0) == concat("below ", size));
    CHECK(message(size, size - 1) == concat("below ", size));
    for (const uint64_t index : {size, size + 1, ~uint64_t{0}}) {
      CHECK(message(size, index).find(concat("index ", index, " of ", size)) != std::string::npos);
    }
  }
  // The whole domain is used: of 2^62 places some lie in its upper half.
  const Permutation all(kMost, 1, 0);
  int upper = 0;
  for (uint64_t i = 0; i < 64; ++i) upper += all(i) >= kMost / 2;
  CHECK(upper > 8);
  CHECK(upper < 56);
}

TEST_CASE("a permutation mixes: places and neighbours are spread evenly", "[loader]") {
  // Chi-squared over 16 buckets of the place of index 0 over 4,000 epochs: mean 15, standard deviation 5.5; and of the distance of neighbours.
  std::array<int, 16> places{}, distances{};
  for (uint64_t epoch = 0; epoch < 4000; ++epoch) {
    const Permutation order(4096, 5, epoch);
    const uint64_t a = order(100), b = order(101);
    ++places[a / 256];
    ++distances[((b - a) & 4095) / 256];
  }
  for (const auto& counts : {places, distances}) {
    double chi = 0;
    for (const int count : counts) chi += (count - 250.0) * (count - 250.0) / 250.0;
    CHECK(chi < 15 + 5 * 5.5);
  }
}

TEST_CASE("the order of samples stays what it was: runs that resume depend on it", "[loader]") {
  const Permutation order(1000, 1234, 2);
  const std::vector<uint64_t> first = {order(0), order(1), order(2), order(3), order(999)};
  CHECK(first == std::vector<uint64_t>{879, 184, 426, 648, 197});  // computed by a second implementation
}

TEST_CASE("shards read back what the formats' own bytes say", "[shard]") {
  const Scratch scratch;
  const std::vector<int32_t> tokens = {0, 1, 65535, 40000, 7};
  const ShardReader narrow(scratch.write("a.bin", shard_bytes(tokens)));
  CHECK(narrow.tokens() == 5);
  CHECK(narrow.token_bytes() == 2);
  CHECK(narrow.largest_token() == 65535);
  const ShardReader wide(scratch.write("b.bin", shard_bytes({1, 128000, 2, 128000}, true)));
  CHECK(wide.token_bytes() == 4);
  CHECK(wide.token(1) == 128000);
  std::vector<uint32_t> seen;
  CHECK(wide.scan(128001, true, [&](int64_t, std::span<const uint32_t> tokens) { seen.assign(tokens.begin(), tokens.end()); }) ==
        sha256_hex(shard_bytes({1, 128000, 2, 128000}, true)));
  CHECK(seen == std::vector<uint32_t>{1, 128000, 2, 128000});
  std::vector<int32_t> part(3);
  narrow.read(1, part);
  CHECK(part == std::vector<int32_t>{1, 65535, 40000});
  wide.read(0, part);
  CHECK(part == std::vector<int32_t>{1, 128000, 2});
  CHECK_THROWS_AS(narrow.read(3, part), Error);
  // nanoGPT's raw form, at the odd addresses a file without header may give.
  const ShardReader raw(scratch.write("raw.bin", shard_bytes(tokens).substr(1024)), ShardFormat::raw_u16);
  CHECK(raw.tokens() == 5);
  CHECK(raw.token(2) == 65535);
}

TEST_CASE("a scan sees the tokens of all blocks, whatever their number", "[shard]") {
  const Scratch scratch;
  std::mt19937_64 random(5);
  for (const size_t size : {0, 1, 65535, 65536, 65537, 200000}) {
    for (const bool wide : {false, true}) {
      std::vector<int32_t> tokens(size);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 50000);
      const std::string content = shard_bytes(tokens, wide);
      const ShardReader shard(scratch.write("s.bin", content));
      std::vector<int32_t> seen;
      const std::string hash = shard.scan(50000, true, [&](int64_t first, std::span<const uint32_t> block) {
        REQUIRE(first == static_cast<int64_t>(seen.size()));
        seen.insert(seen.end(), block.begin(), block.end());
      });
      CHECK(seen == tokens);
      CHECK(hash == sha256_hex(content));
      CHECK(shard.sha256() == hash);
      if (size < 65537) continue;
      std::string bad = content;
      const size_t width = wide ? 4 : 2, at = 1024 + 65536 * width;
      bad.replace(at, 2, "\xFF\xFF");
      const ShardReader damaged(scratch.write("bad.bin", bad));
      CHECK(contains(error_of([&] { damaged.check_tokens(65000); }, ExitCode::bad_data), concat("offset ", at, " (token number 65536)")));
    }
  }
}

TEST_CASE("a written shard is exactly the format's bytes, and appears only when finished", "[shard]") {
  const Scratch scratch;
  {
    ShardWriter writer(scratch / "x.bin", 65536);
    writer.append(std::vector<int32_t>{1, 2, 65535});
    CHECK(!std::filesystem::exists(scratch / "x.bin"));
    writer.append(std::vector<int32_t>{9});
    const std::string hash = writer.finish();
    CHECK(slurp(scratch / "x.bin") == shard_bytes({1, 2, 65535, 9}));
    CHECK(hash == sha256_hex(shard_bytes({1, 2, 65535, 9})));
    ShardWriter wide(scratch / "y.bin", 65537);
    wide.append(std::vector<int32_t>{65536});
    wide.finish();
    CHECK(slurp(scratch / "y.bin") == shard_bytes({65536}, true));
    ShardWriter dropped(scratch / "z.bin", 10);
    dropped.append(std::vector<int32_t>{1});
    CHECK_THROWS_AS(dropped.append(std::vector<int32_t>{10}), Error);
  }
  CHECK(std::distance(std::filesystem::directory_iterator(scratch.path()), std::filesystem::directory_iterator()) == 2);
}

TEST_CASE("sequential samples are [kT, kT + T] of each shard and never cross shards", "[loader]") {
  const Scratch scratch;
  // 10 tokens, T = 3: floor(9 / 3) = 3 samples; 7 tokens: 2; 3 tokens: 0; 4 tokens: 1.
  std::vector<std::vector<int32_t>> shards;
  int32_t next = 0;
  for (const size_t size : {10, 7, 3, 4}) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < size; ++i) tokens.push_back(next++);
    scratch.write(concat("s", shards.size(), ".bin"), shard_bytes(tokens));
    shards.push_back(tokens);
  }
  LoaderOptions options = options_for(scratch / "s*.bin", 3);
  options.order = SampleOrder::sequential;
  Loader loader(options);
  REQUIRE(loader.samples_per_epoch() == 6);
  CHECK(loader.tokens() == 24);
  OwnedBatch batch(6, 3);
  loader.fill(0, batch.view);
  CHECK(batch.tokens == std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 20, 21, 22});
  CHECK(batch.targets == std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 21, 22, 23});
  const Loader::Place place = loader.place(4);
  CHECK(place.file == scratch / "s1.bin");
  CHECK(place.shard == 1);
  CHECK(place.offset == 3);
  OwnedBatch again(1, 3);
  loader.fill(6 * 5 + 4, again.view);  // any epoch
  CHECK(again.tokens == std::vector<int32_t>{13, 14, 15});
}

TEST_CASE("an epoch visits each sample once, in another order each epoch", "[loader]") {
  const Scratch scratch;
  std::mt19937_64 random(1);
  for (int s = 0; s < 3; ++s) scratch.write(concat("s", s, ".bin"), shard_bytes(random_documents(random, 500 + 77 * static_cast<size_t>(s))));
  Loader loader(options_for(scratch / "s*.bin", 8));
  const uint64_t samples = loader.samples_per_epoch();
  std::vector<std::vector<std::pair<uint64_t, uint64_t>>> epochs(2);
  for (uint64_t p = 0; p < 2 * samples; ++p) {
    const Loader::Place place = loader.place(p);
    epochs[p / samples].push_back({place.shard, place.offset});
  }
  CHECK(epochs[0] != epochs[1]);
  for (auto& epoch : epochs) {
    std::sort(epoch.begin(), epoch.end());
    CHECK(std::unique(epoch.begin(), epoch.end()) == epoch.end());
  }
  CHECK(epochs[0] == epochs[1]);
}

TEST_CASE("a batch is a pure function of its positions: any split over ranks and steps gives the same rows", "[loader]") {
  const Scratch scratch;
  std::mt19937_64 random(2);
  scratch.write("a.bin", shard_bytes(random_documents(random, 2000)));
  Loader loader(options_for(scratch / "a.bin", 16));
  OwnedBatch whole(12, 16);
  loader.fill(5, whole.view);
  for (const int64_t ranks : {2, 3, 4, 6}) {
    Loader other(options_for(scratch / "a.bin", 16));
    OwnedBatch parts(12, 16);
    for (int64_t r = ranks - 1; r >= 0; --r) {
      const int64_t rows = 12 / ranks, at = r * rows * 16;
      other.fill(static_cast<uint64_t>(5 + r * rows),
                 {rows, 16, parts.tokens.data() + at, parts.targets.data() + at, parts.document_start.data() + at});
    }
    CHECK(parts == whole);
  }
}

TEST_CASE("targets across a document boundary are ignored and document_start names the document's first token", "[loader]") {
  const Scratch scratch;
  const auto row = [&](EotPosition position, bool mask, std::vector<int32_t> tokens) {
    const int64_t seq = static_cast<int64_t>(tokens.size()) - 1;
    scratch.write("row.bin", shard_bytes(tokens));
    scratch.write("row_more.bin", shard_bytes(std::vector<int32_t>(tokens.size(), 1)));  // targets that count, whatever the row's do
    LoaderOptions options = options_for(scratch / "row*.bin", seq);
    options.order = SampleOrder::sequential;
    options.eot_position = position;
    options.document_mask = mask;
    Loader loader(options);
    OwnedBatch batch(1, seq);
    loader.fill(0, batch.view);
    int64_t valid = 0;
    for (const int32_t target : batch.targets) valid += target >= 0;
    CHECK(loader.valid_targets(0, 1) == valid);
    return std::pair(batch.targets, batch.document_start);
  };
  using Ids = std::vector<int32_t>;
  const int32_t e = kEot;
  CHECK(row(EotPosition::prepend, true, {5, e, 6, 7, e, 8, e}) == std::pair(Ids{-1, 6, 7, -1, 8, -1}, Ids{0, 1, 1, 1, 4, 4}));
  CHECK(row(EotPosition::append, true, {5, e, 6, 7, e, 8, e}) == std::pair(Ids{e, -1, 7, e, -1, e}, Ids{0, 0, 2, 2, 2, 5}));
  CHECK(row(EotPosition::prepend, true, {e, e, e}) == std::pair(Ids{-1, -1}, Ids{0, 1}));
  CHECK(row(EotPosition::append, true, {e, e, 3}) == std::pair(Ids{-1, -1}, Ids{0, 1}));
  CHECK(row(EotPosition::prepend, false, {5, e, 6, 7}) == std::pair(Ids{e, 6, 7}, Ids{0, 0, 0}));
}

TEST_CASE("valid_targets counts what fill gives, over any range", "[loader]") {
  const Scratch scratch;
  for (const bool prepend : {true, false}) {
    std::mt19937_64 random(3);
    scratch.write("a.bin", shard_bytes(random_documents(random, 3000, prepend)));
    scratch.write("b.bin", shard_bytes(random_documents(random, 1000, prepend), true));
    LoaderOptions options = options_for(scratch / "[ab].bin", 24);
    options.eot_position = prepend ? EotPosition::prepend : EotPosition::append;
    Loader loader(options);
    for (int trial = 0; trial < 50; ++trial) {
      const uint64_t first = random() % 1000;
      const int64_t count = static_cast<int64_t>(1 + random() % 20);
      OwnedBatch batch(count, 24);
      loader.fill(first, batch.view);
      int64_t valid = 0;
      for (size_t i = 0; i < batch.targets.size(); ++i) {
        valid += batch.targets[i] >= 0;
        // A second statement of the mask: within a row a target counts iff it is the next token and not the far side of a boundary.
        const bool last = (i + 1) % 24 == 0;
        if (!last && batch.targets[i] >= 0) REQUIRE(batch.targets[i] == batch.tokens[i + 1]);
        if (!last && batch.targets[i] >= 0) REQUIRE(batch.document_start[i] == batch.document_start[i + 1]);
        if (!last && batch.targets[i] < 0) REQUIRE(batch.document_start[i + 1] == static_cast<int32_t>((i + 1) % 24));
      }
      REQUIRE(loader.valid_targets(first, static_cast<uint64_t>(count)) == valid);
    }
  }
}

TEST_CASE("prefetch changes nothing: taken, missed, replaced or left", "[loader]") {
  const Scratch scratch;
  std::mt19937_64 random(4);
  scratch.write("a.bin", shard_bytes(random_documents(random, 5000)));
  LoaderOptions options = options_for(scratch / "a.bin", 32);
  Loader plain(options);
  options.prefetch_batch = 8;
  Loader ahead(options);
  for (int step = 0; step < 300; ++step) {
    const uint64_t first = random() % 500;
    const int64_t rows = static_cast<int64_t>(1 + random() % 8);
    OwnedBatch a(rows, 32), b(rows, 32);
    switch (random() % 5) {
      case 0: ahead.prefetch(first, rows); break;                                    // taken
      case 1: ahead.prefetch(first + 1, rows); break;                                // missed
      case 2: ahead.prefetch(first + 1, 8), ahead.prefetch(first, rows); break;      // replaced
      case 3: ahead.prefetch(first, 1 + static_cast<int64_t>(random() % 8)); break;  // of another size
      default: break;
    }
    if (random() % 2) std::this_thread::yield();
    plain.fill(first, a.view);
    ahead.fill(first, b.view);
    REQUIRE(a == b);
  }
  ahead.prefetch(0, 8);  // left to the destructor
  CHECK_THROWS_AS(ahead.prefetch(0, 9), Error);
}

TEST_CASE("the fingerprint follows content and names, not the folder", "[loader]") {
  const Scratch one, two;
  const auto print = [](const std::string& glob) { return Loader(options_for(glob, 2)).fingerprint(); };
  one.write("a.bin", shard_bytes({1, 2, 3, 4}));
  two.write("a.bin", shard_bytes({1, 2, 3, 4}));
  const std::string before = print(one / "*.bin");
  CHECK(before.size() == 64);
  CHECK(before == print(two / "*.bin"));
  two.write("a.bin", shard_bytes({1, 2, 3, 5}));
  CHECK(before != print(two / "*.bin"));
  std::filesystem::rename(one / "a.bin", one / "b.bin");
  CHECK(before != print(one / "*.bin"));
  const std::string content = shard_bytes({1, 2, 3, 4});
  const Loader renamed(options_for(one / "*.bin", 2));
  CHECK(renamed.shard_list() == concat("b.bin ", content.size(), " ", sha256_hex(content), "\n"));
  CHECK(Loader::fingerprint_of(renamed.shard_list()) == renamed.fingerprint());
}
