// Installs the Debian packages that the tests need; `npm test` begins with it.
import { installPackages, missingPackages } from './packages.ts'

const missing = missingPackages()
if (missing.length > 0) process.stderr.write(`Installing ${missing.join(' ')}\n`)
await installPackages(missing)
