// Memory as the simulated runtime knows it: what the devices own, what the host has pinned, and who asked for it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/sim/cudart/cudart.h"
#include "kernels/sim/cudart/site.h"

namespace heddle::sim::cudart {

enum class Place : uint8_t { pageable, pinned, device };
const char* name_of(Place place);

// How far an allocation of a stream-ordered pool has come. cudaMalloc's are live at once.
enum class Life : uint8_t { promised, live, freed };

struct Allocation {
  std::byte* data = nullptr;
  size_t bytes = 0;  // as asked for; the last 256-byte unit ends at a guard page
  int device = 0;
  Life life = Life::live;
  bool stream_ordered = false;
  bool free_requested = false;  // by cudaFreeAsync; the stream has not come to it
  CallSite made, released;
  std::string made_on, released_on;  // streams of a pool allocation
  std::byte* end() const { return data + bytes; }
};

struct HostRange {
  std::byte* data = nullptr;
  size_t bytes = 0;
  bool owned = false;   // by cudaHostAlloc; else cudaHostRegister
  bool mapped = false;  // kernels may write it
  CallSite made;
};

// Device memory is a range of addresses per device, reserved once. Addresses are handed out upwards and not used again until the range is exhausted,
// so that a freed pointer stays recognisable; every allocation ends (to 256 bytes) at a page that cannot be touched.
class Memory {
 public:
  ~Memory();
  void configure(const RuntimeOptions& options);  // releases everything first

  // Throws Failure{cudaErrorMemoryAllocation}. Fresh memory is filled with 0xff: NaN in every floating-point type.
  std::byte* allocate(int device, size_t bytes, bool promised, const CallSite& site, const std::string& stream);
  void make_live(std::byte* data);
  // Throws Failure{cudaErrorInvalidValue} on what is no live allocation's first byte.
  void request_free(void* pointer, const CallSite& site, const std::string& stream);  // cudaFreeAsync: checks now ...
  void finish_free(std::byte* data);                                                  // ... frees when the stream gets there
  void free(void* pointer, const CallSite& site);

  std::byte* allocate_host(size_t bytes, bool mapped, const CallSite& site);
  void free_host(void* pointer);
  void register_host(void* pointer, size_t bytes, bool mapped, const CallSite& site);
  void unregister_host(void* pointer);
  void mark_mapped(const void* pointer);  // cudaHostGetDevicePointer

  bool is_device(const void* pointer) const;  // of a device's range, live or not
  int device_of(const void* pointer) const;   // -1: none
  // What [pointer, +bytes) is. Throws Failure{error} naming the allocation when it leaves it or is freed; a promised allocation passes.
  Place place_of(const void* pointer, size_t bytes, const char* role, cudaError_t error) const;
  // For work that runs now: it must be live. Throws Failure{cudaErrorIllegalAddress}.
  void require_live(const void* pointer, size_t bytes, const char* role) const;
  bool may_be_written_by_kernels(const void* host_pointer) const;
  bool find_host(const void* pointer, HostRange& out) const;
  bool find_device(const void* pointer, Allocation& out) const;  // the one that holds pointer, freed ones too

  size_t used(int device) const;
  size_t high_water(int device) const;
  size_t limit() const { return options_.memory; }
  uint64_t live_count() const;

  // HEDDLE_SIM_PROTECT: device memory may be touched between open and close only. Nests.
  void open();
  void close();

  // "byte 40 of 4096 bytes of device 0 (cudaMalloc called by f (a.cpp:3))"
  std::string describe(const void* pointer) const;

 private:
  struct Arena {
    std::byte* base = nullptr;
    size_t reserved = 0, next = 0;
    size_t used = 0, high_water = 0;
    bool wrapped = false;  // addresses are being used again
  };
  const Allocation* find(const void* pointer) const;
  const HostRange* find_pinned(const void* pointer) const;
  Allocation& own(void* pointer, const CallSite& site);
  std::byte* reserve(Arena& arena, size_t span);
  void retire(Allocation& allocation);
  void forget_freed();
  void protect(const Allocation& allocation, bool accessible) const;
  void release_all();

  mutable std::recursive_mutex mutex_;
  RuntimeOptions options_;
  std::vector<Arena> arenas_;
  std::map<std::byte*, Allocation> allocations_;  // by first byte; freed ones stay as long as their address is not used again
  std::map<std::byte*, HostRange> pinned_;
  uint64_t live_ = 0;
  int open_ = 0;
};

Memory& memory();

// Reports an access that the hardware of this machine refused (host access under HEDDLE_SIM_PROTECT, a kernel past a guard page, a simulated thread
// anywhere), then lets the signal take its course. Called by every device allocation and by each launch on the OS threads that run it.
void install_fault_handler();
// A SIGSEGV inside is a kernel's; set by what runs work.
void set_running(const char* what);

}  // namespace heddle::sim::cudart
