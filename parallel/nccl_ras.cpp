#include "parallel/nccl_ras.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMostBytes = 8192;
constexpr double kConnect = 0.5;  // seconds

struct Silent {
  std::string why;
};

class Connection {
 public:
  Connection(const std::string& host, const std::string& port, Clock::time_point end) : end_(end) {
    addrinfo wanted{};
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int code = ::getaddrinfo(host.c_str(), port.c_str(), &wanted, &found); code != 0) throw Silent{::gai_strerror(code)};
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, ::freeaddrinfo);
    const Clock::time_point soon = std::min(end, Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(kConnect)));
    std::string why = "no address";
    for (const addrinfo* a = all.get(); a; a = a->ai_next) {
      socket_ = ::socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
      if (socket_ < 0) continue;
      int error = ::connect(socket_, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
      if (error == EINPROGRESS) {
        socklen_t size = sizeof error;
        if (!ready(POLLOUT, soon)) {
          error = ETIMEDOUT;
        } else if (::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
          error = errno;
        }
      }
      if (error == 0) return;
      why = std::strerror(error);
      ::close(std::exchange(socket_, -1));
    }
    throw Silent{why};
  }
  ~Connection() {
    if (socket_ >= 0) ::close(socket_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void send(std::string_view line) const {
    while (!line.empty()) {
      const ssize_t n = ready(POLLOUT, end_) ? ::send(socket_, line.data(), line.size(), MSG_NOSIGNAL) : -1;
      if (n <= 0) throw Silent{"it takes no question"};
      line.remove_prefix(static_cast<size_t>(n));
    }
  }
  // Up to the end of a line. Two lines at once do not come: it answers what it is asked.
  std::string line() {
    std::string text;
    while (text.empty() || text.back() != '\n') {
      if (text.size() > 200 || !more(text)) throw Silent{"another service, or a protocol of another version: " + text.substr(0, 100)};
    }
    text.pop_back();
    return text;
  }
  // Whether anything came before the end of the answer, or of the time.
  bool more(std::string& text) {
    char buffer[1024];
    if (!ready(POLLIN, end_)) return !(late_ = true);
    const ssize_t n = ::recv(socket_, buffer, sizeof buffer, 0);
    if (n > 0) text.append(buffer, static_cast<size_t>(n));
    return n > 0;
  }
  bool late() const { return late_; }

 private:
  bool ready(short events, Clock::time_point until) const {
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
      pollfd asked{socket_, events, 0};
      const int n = ::poll(&asked, 1, static_cast<int>(std::max<int64_t>(left, 0)));
      if (n >= 0 || errno != EINTR) return n > 0;
    }
  }

  int socket_ = -1;
  Clock::time_point end_;
  bool late_ = false;
};

}  // namespace

std::string ask_nccl(double seconds) {
  const char* const told = std::getenv("NCCL_RAS_ADDR");
  const std::string where = told && *told ? told : "localhost:28028";
  const size_t colon = where.rfind(':');
  std::string host = where.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::string service = concat("  NCCL's own service (RAS) at ", printable(where));
  try {
    if (colon == std::string::npos) throw Silent{"NCCL_RAS_ADDR is no HOST:PORT"};
    Connection ras(host, where.substr(colon + 1), Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)));
    ras.send("CLIENT PROTOCOL 2\n");
    if (const std::string greeting = ras.line(); greeting.rfind("SERVER PROTOCOL ", 0) != 0) throw Silent{"another service answers: " + greeting};
    ras.send(concat("TIMEOUT ", std::max(1, static_cast<int>(seconds) - 2), "\n"));  // it may wait for other processes as long
    if (const std::string answer = ras.line(); answer != "OK") throw Silent{"it refuses a time limit: " + answer};
    ras.send("VERBOSE STATUS\n");
    std::string text;
    while (text.size() <= kMostBytes && ras.more(text)) {
    }
    if (text.empty()) throw Silent{"it says nothing"};
    const bool cut = text.size() > kMostBytes;
    text.resize(std::min(text.size(), kMostBytes));
    std::string report = concat(service, ras.late() ? ", cut off by the time:\n" : cut ? ", the beginning:\n" : ":\n");
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      if (end > at) report += concat("    ", printable(text.substr(at, end - at)), "\n");
      at = end + 1;
    }
    return report;
  } catch (const Silent& s) {
    return concat(service, " does not answer: ", printable(s.why), "\n");
  }
}

}  // namespace heddle
