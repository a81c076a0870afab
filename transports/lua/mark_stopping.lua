-- This owner is being stopped: what it holds counts as crashed no more, even if it is killed in the end.

go_on_when_full()
call('DEL', STARTED)
call('SADD', STOPPING, OWNER)
return 1
