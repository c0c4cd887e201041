# install() and the exported package: find_package(heddle) gives heddle::heddle.
