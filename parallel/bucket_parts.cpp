#include "parallel/bucket_parts.h"

namespace heddle {

BucketParts::BucketParts(const Layout& layout, size_t bucket) : range(layout.buckets()[bucket].range) {
  int64_t end = range.begin;
  in_order = true;
  for (int rank = 0; rank < layout.mesh().dp; ++rank) {
    of_rank.push_back(layout.owned(bucket, rank));
    int64_t& count = counts.emplace_back(0);
    for (const Range& part : of_rank.back()) {
      in_order = in_order && part.begin == end;
      end = part.end;
      count += part.size();
    }
    in_order = in_order && of_rank.back().size() <= 1;
  }
}

Work gather_bucket(Communicator& comm, const Tensor& buffer, const BucketParts& parts, Stream stream) {
  const auto me = static_cast<size_t>(comm.rank());
  if (parts.in_order) {
    int64_t begin = parts.range.begin;
    for (size_t rank = 0; rank < me; ++rank) begin += parts.counts[rank];
    return comm.all_gather(flat_view(buffer, {begin, begin + parts.counts[me]}), flat_view(buffer, parts.range), parts.counts, stream);
  }
  std::vector<Transfer> transfers;
  for (size_t peer = 0; peer < parts.of_rank.size(); ++peer) {
    if (peer == me) continue;
    for (const Range& range : parts.of_rank[me]) transfers.push_back({flat_view(buffer, range), static_cast<int>(peer), true});
    for (const Range& range : parts.of_rank[peer]) transfers.push_back({flat_view(buffer, range), static_cast<int>(peer), false});
  }
  return comm.grouped(transfers, stream);
}

}  // namespace heddle
