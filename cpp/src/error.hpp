// What a user can act on: bad files, shapes and arguments. Ends the program with one line and exit code 1, or 2 for
// arguments.
#pragma once

#include <stdexcept>
#include <string>

namespace carina {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct UsageError : Error {
  using Error::Error;
};

}  // namespace carina
