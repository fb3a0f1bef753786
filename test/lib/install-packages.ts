// Installs the Debian packages that the tests need; `npm test` begins with it.
import { makeBase, SUITES } from './bases.ts'
import { BOOTED_PACKAGES } from './booted.ts'
import { fail2banReleases } from './fail2ban-releases.ts'
import { fetchOldNodes } from './old-nodes.ts'
import { installPackages, missingPackages } from './packages.ts'

/** What single tests need beside a lab. */
const MORE = {
  ...BOOTED_PACKAGES,
  chromium: 'chromium',
  openssl: 'openssl',
  curl: 'curl',
  visudo: 'sudo',
  'systemd-analyze': 'systemd',
  man: 'man-db',
  zsh: 'zsh',
  fish: 'fish',
  lintian: 'lintian',
}

const missing = missingPackages(MORE)
if (missing.length > 0) process.stderr.write(`Installing ${missing.join(' ')}\n`)
await installPackages(missing)
// The tests have no network but their own.
await fail2banReleases()
await fetchOldNodes()
if (process.env.F2B_NO_BOOTED !== '1') await Promise.all(SUITES.map(makeBase))
