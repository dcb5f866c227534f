// Package clients uses an engine through the libraries with which other people's programs speak to
// Docker: moby's own client and testcontainers-go. Its tests need DOCKER_HOST, and the image busybox there;
// test/script builds them and runs them against an engine of its own.
//
// It is a module by itself because those libraries bring more modules than all the other tests.
package clients
