// A service that speaks as NCCL's RAS does, or otherwise.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "kernels/api/check.h"

namespace heddle::test {

class FakeRas {
 public:
  // What comes back for each line; the connection ends after the answer to a status.
  using Answer = std::function<std::string(const std::string& line)>;
  explicit FakeRas(Answer answer) : answer_(std::move(answer)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    HEDDLE_CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && ::listen(listener_, 4) == 0, "test", "no port");
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    setenv("NCCL_RAS_ADDR", concat("127.0.0.1:", ntohs(address.sin_port)).c_str(), 1);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeRas() {
    ::shutdown(listener_, SHUT_RDWR);
    if (const int one = connection_; one >= 0) ::shutdown(one, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
    unsetenv("NCCL_RAS_ADDR");
  }
  FakeRas(const FakeRas&) = delete;
  FakeRas& operator=(const FakeRas&) = delete;

  static std::string properly(const std::string& line, const std::string& status) {
    if (line == "CLIENT PROTOCOL 2") return "SERVER PROTOCOL 2\n";
    if (line.rfind("TIMEOUT ", 0) == 0) return "OK\n";
    return line == "VERBOSE STATUS" ? status : "ERROR: unknown command\n";
  }

 private:
  void serve() {
    for (int one; (one = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(one)) {
      connection_ = one;
      std::string line;
      for (char c; ::recv(one, &c, 1, 0) == 1;) {
        if (c != '\n') {
          line += c;
          continue;
        }
        const std::string answer = answer_(line);
        for (size_t at = 0; at < answer.size();) {
          const ssize_t n = ::send(one, answer.data() + at, answer.size() - at, MSG_NOSIGNAL);
          if (n <= 0) break;
          at += static_cast<size_t>(n);
        }
        if (line == "VERBOSE STATUS" && !answer.empty()) break;
        line.clear();
      }
      connection_ = -1;
    }
  }

  Answer answer_;
  int listener_;
  std::atomic<int> connection_{-1};
  std::thread thread_;
};

}  // namespace heddle::test
