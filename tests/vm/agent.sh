# What the machine does once it is up: the work in /opt/job, and then it ends itself.
. /opt/job/environment
ports=/dev/virtio-ports
while [ ! -e $ports/org.host.output ] || [ ! -e $ports/org.host.result ]; do sleep 0.1; done
output=$ports/org.host.output
if [ "$NETMOND_SHELL" ]; then output=/dev/ttyS0; fi
exec 9>$ports/org.host.result <>/dev/null >$output 2>&1

if [ "$NETMOND_SLOWNESS" != 1 ]; then
    # The limits of the unit and the bus are for real processors. Files named later in the alphabet, of tests, still win.
    mkdir -p /run/systemd/system/netmond.service.d
    printf '[Service]\nTimeoutStartSec=900\nTimeoutStopSec=300\nWatchdogSec=300\n' \
        >/run/systemd/system/netmond.service.d/00-emulation.conf
    systemctl daemon-reload
    echo '<busconfig><limit name="service_start_timeout">900000</limit></busconfig>' >/etc/dbus-1/system-local.conf
    busctl --quiet call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig
fi
cd /opt/netmond
bash /opt/job/command
status=$?
if [ $status != 0 ]; then
    echo "--- the journal of netmond ---"
    journalctl --unit=netmond --output=short-precise --no-pager --lines=200
fi
if [ "$NETMOND_SHELL" ]; then
    echo "A shell in the machine; its end is the machine's."
    TERM=${TERM:-linux} setsid --ctty bash -i <>/dev/ttyS0 >&0 2>&1
fi
echo $status >&9
echo o >/proc/sysrq-trigger
