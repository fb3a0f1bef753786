import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mayWrite } from '../../../scripts/lib/setup/hardened.ts'

const QUEUE = '/var/lib/fail2ban-perimeter/queue'

test('mayWrite() knows what hardened units let Fail2Ban write', () => {
  const may: [string, boolean][] = [
    ['ProtectSystem=no\nReadOnlyPaths=\nReadWritePaths=\nInaccessiblePaths=', true],
    ['ProtectSystem=full\nReadWritePaths=', true],
    ['ProtectSystem=strict\nReadWritePaths=', false],
    // ArchWiki, "Service hardening".
    ['ReadOnlyPaths=/\nReadWritePaths=/var/run/fail2ban /var/lib/fail2ban /var/log', false],
    ['ProtectSystem=strict\nReadWritePaths=-/var/run/fail2ban -/var/lib/fail2ban', false],
    [`ProtectSystem=strict\nReadWritePaths=-/var/lib/fail2ban ${QUEUE}`, true],
    [`ReadOnlyPaths=/\nReadWritePaths=-/var/lib/fail2ban-perimeter/`, true],
    ['ProtectSystem=strict\nReadWritePaths=/var', true],
    ['ReadOnlyPaths=/var/lib\nReadWritePaths=/var', false],
    [`InaccessiblePaths=-/var/lib/fail2ban-perimeter\nReadWritePaths=/var/lib`, false],
    ['ProtectSystem=strict\nReadWritePaths=/var/lib/fail2ban-perimeter/q', false],
  ]
  for (const [shown, expected] of may) assert.equal(mayWrite(shown, QUEUE), expected, shown)
})
