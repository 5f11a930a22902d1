// Package target is the iSCSI transport: portals, login, sessions, commands.
package target
