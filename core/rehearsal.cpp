#include "core/rehearsal.h"

#include "core/storage.h"

namespace heddle {

Rehearsal::Rehearsal() {
  set_rehearsing(true);
  for (const DeviceType type : {DeviceType::cpu, DeviceType::cuda}) reset_peaks({type, 0});
}

Rehearsal::~Rehearsal() {
  for (const DeviceType type : {DeviceType::cpu, DeviceType::cuda}) release_cached({type, 0});
  set_rehearsing(false);
}

}  // namespace heddle
