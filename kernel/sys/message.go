package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// StreamPair returns two connected unix stream sockets, blocking. socketpair(2).
func StreamPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// maxFiles is how many descriptors the kernel takes in one message (SCM_MAX_FD).
const maxFiles = 253

// SendWithFiles writes all of data to a unix stream socket and passes files with its first bytes,
// spread over several one-byte messages when there are more than the kernel takes at once. unix(7).
func SendWithFiles(socket *os.File, data []byte, files []int) error {
	for len(data) > 0 {
		var rights []byte
		n := len(data)
		if len(files) > 0 {
			now := min(len(files), maxFiles)
			rights, files = unix.UnixRights(files[:now]...), files[now:]
			if len(files) > 0 {
				n = 1
			}
		}
		sent, err := sendOnce(socket, data[:n], rights)
		if err != nil {
			return err
		}
		data = data[sent:]
	}
	return nil
}

func sendOnce(socket *os.File, data, rights []byte) (n int, err error) {
	err = retry(func() error {
		n, err = unix.SendmsgN(int(socket.Fd()), data, rights, nil, unix.MSG_NOSIGNAL)
		return err
	})
	return n, err
}

// ReceiveWithFiles reads at most len(data) bytes and the descriptors that come with them. At the end
// of the stream n is 0. unix(7).
func ReceiveWithFiles(socket *os.File, data []byte) (n int, files []*os.File, err error) {
	rights := make([]byte, unix.CmsgSpace(maxFiles*4))
	var rightsN int
	err = retry(func() error {
		n, rightsN, _, _, err = unix.Recvmsg(int(socket.Fd()), data, rights, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil || rightsN == 0 {
		return n, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rightsN])
	if err != nil {
		return n, nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return n, files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return n, files, nil
}

// DialStream connects to a unix stream socket, blocking. unix(7).
func DialStream(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) }); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
