"""An SSH bastion in front of containers.

`ssh alice+web.worker.1@bastion` lands in instance 1 of process `worker` of app `web`, if alice owns that app,
and what was done there can be searched, replayed, followed and proved. The words of this package:

connection      one SSH transport connection (RFC 4253/4252); never called a session
channel         one SSH channel (RFC 4254) of a connection: pty-req, env, shell, exec, window-change, signal
session         one program run on a channel: one row in `sessions`, one recording
identity        who authenticated: user name, groups, claims, method
address         `[cluster/]app.proc.instance`, from the SSH user name after the last `+`
container       what an address resolves to: engine, id, name, labels, state
ownership rule  says which identities may enter which container
exec            a Docker exec instance
bridge          the pumps between a channel and an exec
recording       the `.cast` file of a session; the recorder writes it, the player reads it
audit event     one entry in the append-only audit log
"""
