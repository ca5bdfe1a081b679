package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// owns tells whether the TCP connection from peer to local (both "IPv4:port", peer being the other side of what the
// bridge has accepted) is open in a process that descends from root or is in its session.
func owns(root int, peer, local string) bool {
	inode, found := socketInode(peer, local)
	if !found {
		return false
	}
	wanted := "socket:[" + inode + "]"
	for _, pid := range tree(root) {
		descriptors, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, descriptor := range descriptors {
			if target, err := os.Readlink(descriptor); err == nil && target == wanted {
				return true
			}
		}
	}
	return false
}

// socketInode looks the socket up whose own address is own and whose remote one is remote. A dual-stack runtime, such
// as a JVM, has it in the table of IPv6.
func socketInode(own, remote string) (string, bool) {
	ownHex, err := hexAddress(own)
	if err != nil {
		return "", false
	}
	remoteHex, err := hexAddress(remote)
	if err != nil {
		return "", false
	}
	const mapped = "0000000000000000FFFF0000"
	for table, prefix := range map[string]string{"tcp": "", "tcp6": mapped} {
		file, err := os.Open("/proc/self/net/" + table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[1] == prefix+ownHex && fields[2] == prefix+remoteHex {
				file.Close()
				return fields[9], true
			}
		}
		file.Close()
	}
	return "", false
}

// hexAddress gives an address the form of /proc/net/tcp: the bytes of the host reversed, both in upper-case hex.
func hexAddress(text string) (string, error) {
	address, err := netip.ParseAddrPort(text)
	if err != nil {
		return "", err
	}
	host := address.Addr().Unmap().As4()
	reversed := []byte{host[3], host[2], host[1], host[0]}
	return fmt.Sprintf("%s:%04X", strings.ToUpper(hex.EncodeToString(reversed)), address.Port()), nil
}

// tree returns root and every other living process that descends from it or is in its session.
func tree(root int) []int {
	parents, sessions := map[int]int{}, map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// the command's name is in parentheses and may hold anything, ')' included
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 3 {
			parents[pid], _ = strconv.Atoi(fields[1])
			sessions[pid], _ = strconv.Atoi(fields[3])
		}
	}
	members := []int{root}
	for pid := range parents {
		ancestor := pid
		for steps := 0; ancestor != root && parents[ancestor] != 0 && steps < 4096; steps++ {
			ancestor = parents[ancestor]
		}
		if pid != root && (ancestor == root || sessions[pid] == root) {
			members = append(members, pid)
		}
	}
	return members
}
